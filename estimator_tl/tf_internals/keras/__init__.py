"""Keras 2: calls of layers, vocabularies, and optimizers."""
