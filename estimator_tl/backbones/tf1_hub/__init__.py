"""Modules in the TF1 format of TensorFlow Hub as backbones."""
