"""Encoders of token ids as backbones for raw strings."""
