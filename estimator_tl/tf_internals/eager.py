"""Runs a function eagerly in any program, and returns the memory of loaded models to the system."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

_Result = TypeVar("_Result")
_LARGE = 32 << 20  # bytes; below this size, freeing the memory is not worth the time
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
_MEGABYTE = 1 << 20
_MAX_THRESHOLD = 32 * _MEGABYTE  # the maximum to which the C library raises its dynamic threshold


def return_memory(size: int) -> None:
    """Returns the memory of models that are no longer needed to the system, before a session needs the memory.

    Such models contain reference cycles, so they and their weights stay until a garbage collection. After that, the C
    library keeps the freed memory for the threads that allocated it.

    Args:
      size: bytes of the weights; small models are left to Python.
    """
    if size < _LARGE:
        return
    gc.collect()
    _tell_allocator("malloc_trim", 0)


@contextlib.contextmanager
def freeing_at_once() -> Iterator[None]:
    """A block in which freed arrays return to the system at once; used while models load.

    Keras draws random weights, and then reads the weights of the file beside them. The C library would keep the freed
    blocks, although later arrays do not fit into them. The peak would be up to three times the size of the weights.
    """
    _tell_allocator("mallopt", _MMAP_THRESHOLD, _MEGABYTE)
    try:
        yield
    finally:
        # Training frees and allocates the same sizes again and again: faster if the C library keeps the blocks.
        _tell_allocator("mallopt", _MMAP_THRESHOLD, _MAX_THRESHOLD)
        _tell_allocator("mallopt", _TRIM_THRESHOLD, 2 * _MAX_THRESHOLD)


def _tell_allocator(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # C libraries other than glibc lack these functions
            getattr(ctypes.CDLL(None), function)(*arguments)


def run_eagerly_in_thread(function: Callable[[], _Result]) -> _Result:
    """Calls a function eagerly, in a new thread, and returns its result.

    This needs TensorFlow's private context: `tf.init_scope` does not leave a v1 graph, and no public function undoes
    `disable_v2_behavior` for a part of a program. The new thread starts with empty Keras state. Keras counts layer
    names per thread, so names do not depend on layers that the program built before.
    """

    def eagerly() -> _Result:
        from tensorflow.python.eager import context

        with context.eager_mode():
            return function()

    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(eagerly).result()
