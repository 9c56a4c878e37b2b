"""Checkpoints and SavedModels as files: what they say, whether they are whole."""
