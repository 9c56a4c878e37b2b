"""Stands in for `tensorflow.python.tpu.session_support`, gone from TensorFlow 2.16 on.

It watched the workers of a TPU system. TPUEstimator reaches it only with
`use_tpu=True`; with `use_tpu=False` none of these is called.
"""

from __future__ import annotations

from typing import Any

_MESSAGE = "TPUEstimator(use_tpu=True) needs TensorFlow 2.15; use use_tpu=False, or that TensorFlow."


def start_worker_watchdog(*args: Any, **kwargs: Any) -> None:
    """Refused: there is no watchdog without the TPU session support."""
    raise NotImplementedError(_MESSAGE)


class _Unavailable:
    def __init__(self, *args: Any, **kwargs: Any):
        raise NotImplementedError(_MESSAGE)


class GracefulShutdownHook(_Unavailable):
    """Removed hook."""


class ResetComputation(_Unavailable):
    """Removed shutdown action."""


class ShutdownLameWorkers(_Unavailable):
    """Removed shutdown action."""


class ShutdownAllWorkers(_Unavailable):
    """Removed shutdown action."""
