"""Eager execution on request, apart from what the program does."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


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
