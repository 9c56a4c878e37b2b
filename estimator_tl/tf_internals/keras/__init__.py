"""Keras 2 models: the calls of their layers, their vocabularies, their optimizers."""
