"""Makes an `InputGraph`, with the values of its variables, from a function in memory or in a SavedModel's file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from estimator_tl.backbones.input.graph import InputGraph
from estimator_tl.backbones.input.range import Array
from estimator_tl.compat import tf
from estimator_tl.tf_internals.graphs.flat import FlatGraph
from estimator_tl.types import MetaGraphDef, Variable


def of_function(concrete: Any, variables: Iterable[Variable]) -> InputGraph:
    """Returns the graph of a function in memory, with the values that it captured.

    Args:
      concrete: its first numeric input takes the images.
      variables: the variables that it may have captured.
    """
    graph = concrete.graph
    captured = list(zip(concrete.captured_inputs, graph.internal_captures))
    inner_names = {inner.op.name for _, inner in captured}
    by_handle = {id(variable.handle): variable for variable in variables}
    images = next(tensor for tensor in graph.inputs if tensor.op.name not in inner_names and _is_number(tensor.dtype))
    resources = {inner.op.name: id(outer) for outer, inner in captured if outer.dtype == tf.resource}
    by_name = {name: by_handle[handle] for name, handle in resources.items() if handle in by_handle}
    return InputGraph(
        FlatGraph(graph.as_graph_def()),
        images.name,
        [tensor.name for tensor in graph.outputs],
        {name: variable.numpy for name, variable in by_name.items()},
        {name for name, variable in by_name.items() if not variable.dtype.is_floating},
        {inner.op.name: outer.numpy for outer, inner in captured if outer.dtype != tf.resource},
        images.dtype,
    )


def _is_number(dtype: Any) -> bool:
    return bool(dtype.is_floating or dtype.is_integer)


def of_saved_function(meta_graph: MetaGraphDef, name: str, value: Callable[[int], Array]) -> InputGraph:
    """Returns the graph of a function in a SavedModel's file.

    Args:
      meta_graph: a MetaGraphDef with an object graph.
      name: of the function.
      value: returns the value of a variable by the number of its object.
    """
    objects = meta_graph.object_graph_def
    flat, arguments, results = FlatGraph.of_function(meta_graph.graph_def, name)
    bound = list(objects.concrete_functions[name].bound_inputs)
    count = len(arguments) - len(bound)  # bound inputs come last
    definitions = zip(arguments[:count], flat.library[name].signature.input_arg)
    types = [(argument, tf.as_dtype(definition.type)) for argument, definition in definitions]
    images, dtype = next((argument, dtype) for argument, dtype in types if _is_number(dtype))
    kinds = {number: objects.nodes[number].WhichOneof("kind") for number in bound}
    captured = [(argument.removesuffix(":0"), number) for argument, number in zip(arguments[count:], bound)]
    constants = {node.name: node for node in meta_graph.graph_def.node if node.op == "Const"}

    def is_real(number: int) -> bool:
        return bool(tf.as_dtype(objects.nodes[number].variable.dtype).is_floating)

    def constant(number: int) -> Array:
        return tf.make_ndarray(constants[objects.nodes[number].constant.operation].attr["value"].tensor)

    return InputGraph(
        flat,
        images,
        results,
        {name: functools.partial(value, number) for name, number in captured if kinds[number] == "variable"},
        {name for name, number in captured if kinds[number] == "variable" and not is_real(number)},
        {name: functools.partial(constant, number) for name, number in captured if kinds[number] == "constant"},
        dtype,
    )
