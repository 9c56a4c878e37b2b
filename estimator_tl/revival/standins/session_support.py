"""Stand-in for `tensorflow.python.tpu.session_support`, which TensorFlow removed in 2.16.

The original watched the health of TPU workers; if a worker failed, it saved a
checkpoint and reset the computation. TPUEstimator uses it whenever it builds a
training graph with `use_tpu=True`. The stand-in accepts the same calls, watches
nothing, and says so in the log. After the loss of a worker, the session recovers
from the last periodic checkpoint.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_UNWATCHED = "TPU workers are not watched on this TensorFlow; a lost one costs the steps since the last checkpoint."


def start_worker_watchdog(session: Any, devices: Any = None, **settings: Any) -> None:
    """Logs that there is no watchdog."""
    tf.compat.v1.logging.warning(_UNWATCHED)


class GracefulShutdownHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Logs, when training begins, that nothing watches the workers.

    Args:
      checkpoint_prefix: accepted and unused.
      saver: accepted and unused.
      on_shutdown_hooks: accepted and unused.
    """

    def __init__(self, checkpoint_prefix: str, saver: Any = None, on_shutdown_hooks: Any = None):
        del checkpoint_prefix, saver, on_shutdown_hooks

    def begin(self) -> None:
        """Logs the warning."""
        tf.compat.v1.logging.warning(_UNWATCHED)


class ResetComputation:
    """What to do when a worker fails: nothing here."""


class ShutdownLameWorkers:
    """What to do when a worker fails: nothing here."""


class ShutdownAllWorkers:
    """What to do when a worker fails: nothing here."""
