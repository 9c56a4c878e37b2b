"""The one factory: backbone, tuning, head and optimizer become a standard model_fn."""
