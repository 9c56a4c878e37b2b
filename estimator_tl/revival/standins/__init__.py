"""Stand-ins for what TensorFlow 2.16 and later no longer has; one module for each missing thing."""
