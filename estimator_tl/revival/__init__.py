"""Brings Estimator back on TensorFlow 2.16 and later, also for existing programs."""
