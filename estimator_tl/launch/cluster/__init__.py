"""The cluster of a process: its description, its tasks, and how training is distributed."""
