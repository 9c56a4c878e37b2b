"""Keras 2 models as backbones: applications by name, and users' files."""
