"""Evaluations of a run, from checkpoints and in memory."""
