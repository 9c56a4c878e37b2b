"""Session hooks of training runs."""

from estimator_tl.launch.hooks.nan_guard import NanGuardHook
from estimator_tl.launch.hooks.norms import NormsHook
from estimator_tl.launch.hooks.profiler import ProfilerHook, profile_window
from estimator_tl.launch.hooks.progress import ProgressHook, clock, metrics_text, show_evaluation
from estimator_tl.launch.hooks.saving import ReachedHook, saver_hook
from estimator_tl.launch.hooks.stall import StallWatchdog

__all__ = [
    "NanGuardHook",
    "NormsHook",
    "ProfilerHook",
    "ProgressHook",
    "ReachedHook",
    "StallWatchdog",
    "clock",
    "metrics_text",
    "profile_window",
    "saver_hook",
    "show_evaluation",
]
