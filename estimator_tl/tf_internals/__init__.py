"""Code that needs private symbols of TensorFlow, behind plain functions."""
