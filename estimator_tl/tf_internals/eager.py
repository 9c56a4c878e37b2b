"""Eager execution on request, apart from what the program does."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

_Result = TypeVar("_Result")
_LARGE = 32 << 20  # bytes that are worth the time to have them back
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
_MEGABYTE = 1 << 20
_MOST = 32 * _MEGABYTE  # where the C library's own, growing, threshold ends


def give_back(size: int) -> None:
    """Has the memory of models that were loaded apart, and are done with, back before a session needs it.

    They hold themselves in cycles, and their weights with them; what is freed, the C library
    keeps for the threads that had it.

    Args:
      size: bytes of their weights; small ones are left to Python.
    """
    if size < _LARGE:
        return
    gc.collect()
    _tell_allocator("malloc_trim", 0)


@contextlib.contextmanager
def freed_at_once() -> Iterator[None]:
    """A block in which arrays that are freed go back to the system, for loading models.

    Keras draws random weights and reads those of the file beside them. The C library keeps such blocks for later ones,
    which do not fit into them, so that the peak would be up to three times the weights.
    """
    _tell_allocator("mallopt", _MMAP_THRESHOLD, _MEGABYTE)
    try:
        yield
    finally:
        # Training frees and takes the same sizes again and again; there blocks that are kept are faster.
        _tell_allocator("mallopt", _MMAP_THRESHOLD, _MOST)
        _tell_allocator("mallopt", _TRIM_THRESHOLD, 2 * _MOST)


def _tell_allocator(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such functions
            getattr(ctypes.CDLL(None), function)(*arguments)


def run_eagerly_apart(function: Callable[[], _Result]) -> _Result:
    """Calls a function eagerly, in a thread of its own, and returns its result.

    `tf.init_scope` does not leave a v1 graph, and `disable_v2_behavior` has no
    public counterpart for a part of a program, hence the private context. The
    thread keeps Keras's global state out of it: its counters of layer names are
    per thread, so that names do not depend on what the program built before.
    """

    def eagerly() -> _Result:
        from tensorflow.python.eager import context

        with context.eager_mode():
            return function()

    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as apart:
        return apart.submit(eagerly).result()
