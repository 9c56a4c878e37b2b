"""Imports TensorFlow quickly and keeps its start-up messages and deprecation notices out of people's terminals."""

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
# On parameter servers a worker may see the step as it was before its own; an evaluator of Estimator's is not used.
_OF_CLUSTERS = ("It seems that global step", "`eval_strategy` is not passed in")


class _Without(logging.Filter):
    def __init__(self, text: str):
        super().__init__(text)
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        return self.text not in str(record.msg)


def silence_deprecations() -> None:
    """Drops the deprecation notices from TensorFlow's own logger, and nothing else from it."""
    _silence(_DEPRECATIONS)


def silence_cluster_warnings() -> None:
    """Drops from TensorFlow's own logger what it warns of in each healthy run of `train` on a cluster."""
    for text in _OF_CLUSTERS:
        _silence(text)


def _silence(text: str) -> None:
    import tensorflow

    logger = tensorflow.get_logger()
    if not any(isinstance(present, _Without) and present.text == text for present in logger.filters):
        logger.addFilter(_Without(text))


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow without its C++ start-up messages and Python's warnings about its insides."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"tf_keras|keras|tensorflow.*")
    with _native_stderr_held_back(), _kept_for_good():
        import tensorflow  # noqa: F401
    silence_deprecations()


@contextlib.contextmanager
def _kept_for_good() -> Iterator[None]:
    """A block whose objects stay as long as the process; Python does not look through them for garbage again and again.

    That takes a tenth of the time of TensorFlow's import. https://docs.python.org/3/library/gc.html#gc.freeze
    """
    if "tensorflow" in sys.modules:  # then there may be objects that do not stay
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
def _native_stderr_held_back() -> Iterator[None]:
    """Holds back what C++ writes to standard error; shows it if the body fails.

    TensorFlow from 2.17 on writes messages before its log level is read, so the
    file descriptor is the only place to stop them.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def set_log_level(level: str) -> None:
    """Sets TensorFlow's Python loggers to `level` (debug, info, warning or error)."""
    import tensorflow

    tensorflow.get_logger().setLevel(level.upper())
