"""Where in a graph numbers stop being finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from estimator_tl.compat import tf
from estimator_tl.tf_internals.graphs.ops import ancestors
from estimator_tl.tf_internals.graphs.replicas import copies

_AT_ONCE = 64


def finite(value: Any) -> bool:
    """Returns whether all numbers of an array are."""
    return bool(np.all(np.isfinite(np.asarray(value, np.float32))))


def bad_variables(session: Any, variables: Iterable[Any]) -> list[str]:
    """Returns the names of the variables that hold something non-finite, in their order."""
    floating = [copy for variable in variables if variable.dtype.is_floating for copy in copies(variable)]
    return [floating[index].op.name for index, _ in _bad(session, floating, {})]


def before_collectives(tensor: Any) -> list[Any]:
    """Returns what this task adds to a value that is summed over tasks, as no task can compute that sum alone."""
    sums = [op for op in ancestors([tensor]) if op.type.startswith("Collective")]
    return [added for op in sums for added in op.inputs if added.dtype.is_floating] or [tensor]


def origins(session: Any, targets: Sequence[Any], feed: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """Finds where non-finite targets come from.

    Of the tensors between the input and the targets those are meant that are not finite, although all of their inputs
    are. Those that no target takes, as the other side of a `tf.where` on infinity, do not count, and neither do
    constants, which are meant to be what they are.

    Args:
      session: of the graph.
      targets: tensors.
      feed: by tensor.

    Returns:
      Tensors and their values, in graph order; none where the targets are finite.
    """
    if not targets:
        return []
    needed = {op.name for op in ancestors(targets)}
    operations = [op for op in targets[0].graph.get_operations() if op.name in needed and op.type != "Const"]
    tensors = [tensor for op in operations for tensor in op.outputs if tensor.dtype.is_floating]
    bad = {tensors[index].name: (tensors[index], value) for index, value in _bad(session, tensors, feed)}
    pending, seen = [target.name for target in targets if target.name in bad], set()
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending.extend(tensor.name for tensor in bad[name][0].op.inputs if tensor.name in bad)
    return [bad[n] for n in bad if n in seen and not any(tensor.name in bad for tensor in bad[n][0].op.inputs)]


def _bad(session: Any, tensors: Sequence[Any], feed: Mapping[Any, Any]) -> list[tuple[int, Any]]:
    """Returns places and values of the non-finite ones; some at a time, as all activations fill a machine's memory."""
    found: list[tuple[int, Any]] = []
    parts = [range(start, min(start + _AT_ONCE, len(tensors))) for start in range(0, len(tensors), _AT_ONCE)]
    while parts:
        part = parts.pop(0)
        try:
            values = session.run([tensors[index] for index in part], feed)
        except tf.errors.OpError:  # one of them cannot be had, e.g. as the branch that was not taken
            middle = len(part) // 2
            parts[:0] = [part[:middle], part[middle:]] if middle else []
            continue
        found.extend((index, value) for index, value in zip(part, values) if not finite(value))
    return found
