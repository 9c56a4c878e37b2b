"""Finds where in a graph values become NaN or infinite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from estimator_tl.compat import tf
from estimator_tl.tf_internals.graphs.ops import ancestors
from estimator_tl.tf_internals.graphs.replicas import copies
from estimator_tl.types import Session, Tensor, Variable

_AT_ONCE = 64


def finite(value: Any) -> bool:
    """Returns whether an array has neither NaN nor infinity."""
    return bool(np.all(np.isfinite(np.asarray(value, np.float32))))


def bad_variables(session: Session, variables: Iterable[Variable]) -> list[str]:
    """Returns the names of the variables that hold NaN or infinity, in their order."""
    floating = [copy for variable in variables if variable.dtype.is_floating for copy in copies(variable)]
    return [floating[index].op.name for index, _ in _bad(session, floating, {})]


def before_collectives(tensor: Tensor) -> list[Any]:
    """Returns this task's shares of a value that is summed over tasks; no task can compute the sum alone."""
    sums = [op for op in ancestors([tensor]) if op.type.startswith("Collective")]
    return [share for op in sums for share in op.inputs if share.dtype.is_floating] or [tensor]


def origins(session: Session, targets: Sequence[Any], feed: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """Finds the tensors from which NaN or infinity reaches the targets.

    An origin is a tensor with NaN or infinity whose inputs are all finite. Tensors that reach no target through bad
    tensors do not count, e.g. the unused side of a `tf.where`. Constants do not count, as their values are intended.

    Args:
      session: a session of the graph.
      targets: the tensors to explain.
      feed: the values to feed, by tensor.

    Returns:
      The origins with their values, in graph order; empty if the targets are finite.
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


def _bad(session: Session, tensors: Sequence[Tensor], feed: Mapping[Any, Any]) -> list[tuple[int, Any]]:
    """Returns the positions and values of tensors with NaN or infinity.

    It fetches a few tensors at a time, as all activations together could fill the memory.
    """
    bad: list[tuple[int, Any]] = []
    parts = [range(start, min(start + _AT_ONCE, len(tensors))) for start in range(0, len(tensors), _AT_ONCE)]
    while parts:
        part = parts.pop(0)
        try:
            values = session.run([tensors[index] for index in part], feed)
        except tf.errors.OpError:  # one of them cannot be fetched, e.g. in a branch that did not run
            middle = len(part) // 2
            if middle:
                parts[:0] = [part[:middle], part[middle:]]
            continue
        bad.extend((index, value) for index, value in zip(part, values) if not finite(value))
    return bad
