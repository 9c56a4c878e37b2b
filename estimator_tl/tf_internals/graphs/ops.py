"""What depends on what in a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def ancestors(things: Iterable[Any], stop: Any = None, control: bool = False) -> list[Any]:
    """Returns the operations that tensors or operations need, their own included.

    Args:
      things: tensors, operations, or what assignments return.
      stop: an operation beyond which nobody looks.
      control: whether control dependencies count.
    """
    pending = [getattr(thing, "op", thing) for thing in things]
    found: dict[str, Any] = {}
    while pending:
        op = pending.pop()
        if op.name in found:
            continue
        found[op.name] = op
        if stop is None or op.name != stop.name:
            pending.extend(tensor.op for tensor in op.inputs)
            pending.extend(op.control_inputs if control else ())
    return list(found.values())


def used_variables(things: Iterable[Any], owners: Mapping[str, str], stop: Any = None) -> set[str]:
    """Returns the names of the variables that tensors or operations are computed from.

    Args:
      things: see `ancestors`.
      owners: name of a variable by the name of its operation.
      stop: see `ancestors`.
    """
    return {owners[op.name] for op in ancestors(things, stop) if op.name in owners}


def written_variables(things: Iterable[Any], owners: Mapping[str, str], stop: Any = None) -> set[str]:
    """Returns the names of the variables that running tensors or operations assigns to; see `used_variables`."""
    return {
        owners[op.inputs[0].op.name]
        for op in ancestors(things, stop, control=True)
        if "Assign" in op.type and op.inputs and op.inputs[0].op.name in owners
    }


def met_by_data(operations: Iterable[Any], source: Any, output: Any, owners: Mapping[str, str]) -> list[str]:
    """Returns the names of the variables that an output depends on, in the order in which data meets them.

    Args:
      operations: of the graph, in the order of their creation.
      source: the operation that gives the data.
      output: a tensor.
      owners: name of a variable by the name of its operation.
    """
    needed = {op.name for op in ancestors([output])}
    fed = {source.name}
    waiting: dict[str, dict[str, None]] = {}  # by operation: the variables that it brings and no data has met yet
    met: dict[str, None] = {}
    for op in operations:
        if op.name not in needed or op.name == source.name:
            continue
        brought = {owners[op.name]: None} if op.name in owners else {}
        for tensor in op.inputs:
            brought.update(waiting.get(tensor.op.name, {}))
        if any(tensor.op.name in fed for tensor in op.inputs):
            fed.add(op.name)
            met.update(brought)
        else:
            waiting[op.name] = brought
    return [*met, *(name for name in waiting.get(output.op.name, {}) if name not in met)]
