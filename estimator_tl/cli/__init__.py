"""The command line: one module for each command; no other module reads flags."""
