"""Dependencies between the operations of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def ancestors(things: Iterable[Any], stop: Any = None, control: bool = False) -> list[Any]:
    """Returns the operations that tensors or operations depend on, including themselves.

    Args:
      things: tensors, operations, or return values of assignments.
      stop: an operation; the walk does not go on to its inputs.
      control: whether control dependencies count.
    """
    pending = [getattr(thing, "op", thing) for thing in things]
    ops: dict[str, Any] = {}
    while pending:
        op = pending.pop()
        if op.name in ops:
            continue
        ops[op.name] = op
        if stop is None or op.name != stop.name:
            pending.extend(tensor.op for tensor in op.inputs)
            if control:
                pending.extend(op.control_inputs)
    return list(ops.values())


def used_variables(things: Iterable[Any], owners: Mapping[str, str], stop: Any = None) -> set[str]:
    """Returns the names of the variables from which tensors or operations are computed.

    Args:
      things: see `ancestors`.
      owners: the name of each variable, by the name of its operation.
      stop: see `ancestors`.
    """
    return {owners[op.name] for op in ancestors(things, stop) if op.name in owners}


def written_variables(things: Iterable[Any], owners: Mapping[str, str], stop: Any = None) -> set[str]:
    """Returns the names of the variables that are assigned when tensors or operations run; see `used_variables`."""
    return {
        owners[op.inputs[0].op.name]
        for op in ancestors(things, stop, control=True)
        if "Assign" in op.type and op.inputs and op.inputs[0].op.name in owners
    }


def variables_in_data_order(
    operations: Iterable[Any], source: Any, output: Any, owners: Mapping[str, str]
) -> list[str]:
    """Returns the names of the variables that an output depends on, in the order in which the data flow reaches them.

    Args:
      operations: all operations of the graph, in the order of creation.
      source: the operation that outputs the data.
      output: a tensor.
      owners: the name of each variable, by the name of its operation.
    """
    needs = {op.name for op in ancestors([output])}
    data_ops = {source.name}  # operations that depend on the data
    pending: dict[str, dict[str, None]] = {}  # by operation without data: the variables that it depends on
    order: dict[str, None] = {}
    for op in operations:
        if op.name not in needs or op.name == source.name:
            continue
        variables = {owners[op.name]: None} if op.name in owners else {}
        for tensor in op.inputs:
            variables.update(pending.get(tensor.op.name, {}))
        if any(tensor.op.name in data_ops for tensor in op.inputs):
            data_ops.add(op.name)
            order.update(variables)
        else:
            pending[op.name] = variables
    return [*order, *(name for name in pending.get(output.op.name, {}) if name not in order)]
