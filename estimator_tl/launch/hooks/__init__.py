"""Session hooks of training runs."""

from estimator_tl.launch.hooks.progress import ProgressHook, clock, metrics_text, show_evaluation

__all__ = ["ProgressHook", "clock", "metrics_text", "show_evaluation"]
