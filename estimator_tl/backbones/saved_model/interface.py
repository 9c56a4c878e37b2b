"""Reads what a SavedModel offers: traced functions with their inputs, outputs and variables.

The interface is read from a loaded model, or from the object graph in the model's file, which is a hundred times
faster. Every run describes its model first, and loads it only to build the graph.
https://www.tensorflow.org/guide/saved_model
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl.backbones.effects import Effects, Library
from estimator_tl.backbones.input.graph import InputGraph
from estimator_tl.backbones.input.sources import of_function, of_saved_function
from estimator_tl.compat import tf
from estimator_tl.tf_internals.files.saved_models import decode_structure


@dataclasses.dataclass(frozen=True, eq=False)
class Variable:
    """A variable as the file describes it, with `name`, `shape`, `dtype` and `trainable` as a tf.Variable has them."""

    name: str
    shape: tf.TensorShape
    dtype: tf.DType
    trainable: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """A traced function.

    Attributes:
      inputs: specs and plain values of its positional arguments and of its keyword arguments.
      outputs: specs of its outputs, nested as it returns them.
      variables: the variables that it reads or writes, in order of first use.
      graph: returns its graph, for a walk over it; eager only.
      effects: returns what a call does besides computing, for the indices of the selected outputs (in the order of
        `tf.nest.flatten`). It returns no effects for a loaded model: its file has been checked for them before.
    """

    inputs: tuple[Sequence[Any], Mapping[str, Any]]
    outputs: Any
    variables: Sequence[Any]
    graph: Callable[[], InputGraph]
    effects: Callable[[Sequence[int]], Effects] = lambda outputs: Effects()


@dataclasses.dataclass(frozen=True, eq=False)
class Interface:
    """How a SavedModel can be called.

    Attributes:
      functions: the traces of its ``__call__``; None where it cannot be called.
      arguments: names of the positional arguments of its ``__call__``.
      signatures: its signatures by name.
      trainable: the variables that it lists as trainable; None where it has no list.
    """

    functions: Sequence[Function] | None
    arguments: Sequence[str]
    signatures: Mapping[str, Function]
    trainable: Sequence[Any] | None


def of_model(model: Any) -> Interface:
    """Returns the interface of a loaded model."""
    by_id: dict[int, Any] = {}
    for variable in tf.train.TrackableView(model).descendants():
        if isinstance(variable, tf.Variable):
            # A function captures the handle; under a strategy it captures the variable itself.
            by_id[id(variable)] = by_id[id(variable.handle)] = variable

    def function_of(concrete: Any) -> Function:
        keys = {id(captured): None for captured in concrete.captured_inputs}
        variables = [by_id[key] for key in keys if key in by_id]
        graph = functools.partial(of_function, concrete, variables)
        return Function(concrete.structured_input_signature, concrete.structured_outputs, variables, graph)

    functions, arguments = None, []
    if callable(model):
        functions = [function_of(f) for f in model.__call__.concrete_functions]
        arguments = _positional(model.__call__)
    trainable = getattr(model, "trainable_variables", None)
    if trainable is not None:
        trainable = [by_id[id(variable.handle)] for variable in trainable]
    signatures = {name: function_of(f) for name, f in getattr(model, "signatures", {}).items()}
    return Interface(functions, arguments, signatures, trainable)


def of_file(meta_graph: Any, value: Callable[[int], Any]) -> Interface:
    """Returns the interface of the model that a MetaGraphDef with an object graph describes.

    Args:
      meta_graph: the MetaGraphDef.
      value: returns the value of a variable by the number of its object.
    """
    graph = meta_graph.object_graph_def
    library = Library(meta_graph.graph_def)
    variables = {
        number: Variable(
            node.variable.name or "Variable",
            tf.TensorShape(node.variable.shape),
            tf.as_dtype(node.variable.dtype),
            node.variable.trainable,
        )
        for number, node in enumerate(graph.nodes)
        if node.WhichOneof("kind") == "variable"
    }

    def children(number: int) -> dict[str, int]:
        return {child.local_name: child.node_id for child in graph.nodes[number].children}

    def function_of(name: str) -> Function:
        concrete = graph.concrete_functions[name]
        bound = [variables[number] for number in dict.fromkeys(concrete.bound_inputs) if number in variables]
        inputs = decode_structure(concrete.canonicalized_input_signature)
        captured = [
            variables[number].name if number in variables else f"resource {number}" for number in concrete.bound_inputs
        ]
        graph_of = functools.partial(of_saved_function, meta_graph, name, value)
        effects = functools.partial(library.of_function, name, captured)
        return Function(inputs, decode_structure(concrete.output_signature), bound, graph_of, effects)

    root = children(0)
    functions, arguments, trainable = None, [], None
    if "__call__" in root:
        call = graph.nodes[root["__call__"]].function
        functions = [function_of(name) for name in call.concrete_functions]
        arguments = _argument_names(call.function_spec)
    if "trainable_variables" in root:
        numbers = children(root["trainable_variables"]).values()
        trainable = [variables[number] for number in numbers if number in variables]
    signatures = {}
    if "signatures" in root:
        for name, number in children(root["signatures"]).items():
            signatures[name] = function_of(graph.nodes[number].bare_concrete_function.concrete_function_name)
    return Interface(functions, arguments, signatures, trainable)


def with_effects(interface: Interface, meta_graph: Any) -> Interface:
    """Returns the interface of a loaded model, with the effects of the signatures in its file.

    Args:
      interface: from `of_model`, of a model that TensorFlow 1 saved.
      meta_graph: its MetaGraphDef.
    """
    library = Library(meta_graph.graph_def)

    def effects(name: str, numbers: Sequence[int]) -> Effects:
        outputs = meta_graph.signature_def[name].outputs
        tensors = [outputs[key].name for key in sorted(outputs)]
        return library.of_tensors(tensors, [tensors[number] for number in numbers])

    signatures = {
        name: dataclasses.replace(function, effects=functools.partial(effects, name))
        for name, function in interface.signatures.items()
    }
    return dataclasses.replace(interface, signatures=signatures)


def _positional(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


def _argument_names(function_spec: Any) -> list[str]:
    """Returns the names of a saved function's positional arguments, without the `self` of a method."""
    names = list(decode_structure(function_spec.fullargspec).args)
    return names[1:] if function_spec.is_method or names[:1] == ["self"] else names
