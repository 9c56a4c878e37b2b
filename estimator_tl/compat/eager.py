"""Eager execution on request, apart from what the program does."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")
_LARGE = 32 << 20  # bytes that are worth the time to have them back


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
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such function
            ctypes.CDLL(None).malloc_trim(0)


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
