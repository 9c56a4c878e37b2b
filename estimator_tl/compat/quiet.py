"""Imports TensorFlow quickly, and hides its start-up messages and deprecation notices from the terminal."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

_DEPRECATIONS = "is deprecated and will be removed"
# Warnings without a cause: on parameter servers, a worker may read the global step before its increment arrives; and
# runs use no evaluator of Estimator.
_CLUSTER_WARNINGS = ("It seems that global step", "`eval_strategy` is not passed in")


class _TextFilter(logging.Filter):
    """Drops log records that contain a text."""

    def __init__(self, text: str):
        super().__init__(text)
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        return self.text not in str(record.msg)


def silence_deprecations() -> None:
    """Drops deprecation notices from TensorFlow's logger, and nothing else."""
    _silence(_DEPRECATIONS)


def silence_cluster_warnings() -> None:
    """Drops from TensorFlow's logger the warnings that appear in every healthy run of `train` on a cluster."""
    for text in _CLUSTER_WARNINGS:
        _silence(text)


def _silence(text: str) -> None:
    import tensorflow

    logger = tensorflow.get_logger()
    if not any(isinstance(present, _TextFilter) and present.text == text for present in logger.filters):
        logger.addFilter(_TextFilter(text))


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow without its C++ start-up messages and without Python's warnings about its code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"tf_keras|keras|tensorflow.*")
    with _hidden_native_stderr(), _exempt_from_garbage_collection():
        import tensorflow  # noqa: F401
    silence_deprecations()


@contextlib.contextmanager
def _exempt_from_garbage_collection() -> Iterator[None]:
    """A block whose objects live as long as the process, so the garbage collector never has to search them.

    Such searches take a tenth of the time of TensorFlow's import. https://docs.python.org/3/library/gc.html#gc.freeze
    """
    if "tensorflow" in sys.modules:  # then there may be objects with a shorter life
        yield
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _hidden_native_stderr() -> Iterator[None]:
    """Hides what C++ writes to standard error, and shows it if the body fails.

    TensorFlow from 2.17 on writes messages before it reads its log level, so they
    can only be stopped at the file descriptor.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            messages.seek(0)
            os.write(2, messages.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def set_log_level(level: str) -> None:
    """Sets the level of TensorFlow's Python logger (debug, info, warning or error)."""
    import tensorflow

    tensorflow.get_logger().setLevel(level.upper())
