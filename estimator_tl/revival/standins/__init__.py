"""Stand-ins for modules and names that TensorFlow 2.16 and later no longer has; one file for each."""
