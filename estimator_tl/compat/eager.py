"""Eager execution on request, for programs that turned it off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def eager_scope() -> Iterator[None]:
    """Runs its body eagerly and outside any graph, wherever the caller is.

    `tf.init_scope` does not leave a v1 graph, and `disable_v2_behavior` has no
    public counterpart for a part of a program, hence the private context.
    """
    from tensorflow.python.eager import context

    with context.eager_mode():
        yield
