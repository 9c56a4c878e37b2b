"""Checkpoints and SavedModels as files: reads their contents, and checks that they are whole."""
