"""Keras 2 models as backbones: applications by name, and files of people."""
