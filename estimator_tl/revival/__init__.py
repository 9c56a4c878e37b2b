"""How Estimator comes back on TensorFlow 2.16 and later, and how existing programs run with it."""
