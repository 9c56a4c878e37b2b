"""Stands in for `tensorflow.python.tpu.session_support`, gone from TensorFlow 2.16 on.

It watched the health of TPU workers, and on a failing one saved a checkpoint
and reset the computation. TPUEstimator asks for it whenever it builds a
training graph with `use_tpu=True`. Here the names are accepted, nothing is
watched, and the log says so; a lost worker is then met by the session's own
recovery, from the last periodic checkpoint.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_UNWATCHED = "TPU workers are not watched on this TensorFlow; a lost one costs the steps since the last checkpoint."


def start_worker_watchdog(session: Any, devices: Any = None, **settings: Any) -> None:
    """Says that there is no watchdog."""
    tf.compat.v1.logging.warning(_UNWATCHED)


class GracefulShutdownHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Says, when training begins, that workers are not watched.

    Args:
      checkpoint_prefix: accepted and unused.
      saver: accepted and unused.
      on_shutdown_hooks: accepted and unused.
    """

    def __init__(self, checkpoint_prefix: str, saver: Any = None, on_shutdown_hooks: Any = None):
        del checkpoint_prefix, saver, on_shutdown_hooks

    def begin(self) -> None:
        """Says it."""
        tf.compat.v1.logging.warning(_UNWATCHED)


class ResetComputation:
    """What to do when a worker fails: nothing here."""


class ShutdownLameWorkers:
    """What to do when a worker fails: nothing here."""


class ShutdownAllWorkers:
    """What to do when a worker fails: nothing here."""
