"""The run directory, and a run opened or prepared in it."""
