"""Checkpoints as backbones, with the function that builds their network."""
