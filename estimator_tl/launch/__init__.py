"""From settings to a trained run: RunConfig, Estimator, train_and_evaluate, and the run directory."""
