"""What a SavedModel offers to its users: traced functions with their inputs, outputs and variables.

Read from the model once it is loaded, or from the object graph in its file, which takes a hundredth of the time: a
model is described before every run, and loaded anyway when its graph is built.
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
    """A variable as the file describes it; `name`, `shape`, `dtype` and `trainable` as those of a tf.Variable."""

    name: str
    shape: tf.TensorShape
    dtype: tf.DType
    trainable: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """A traced function.

    Attributes:
      inputs: specs and plain values of its positional arguments and of those by name.
      outputs: specs of what it gives, nested as it gives them.
      variables: those that it reads or writes, in the order of first use.
      graph: returns its graph, for a walk over it; eagerly only.
      effects: says what a call does besides computing, for the numbers of the outputs that are used (in the order of
        `tf.nest.flatten`); nothing where the interface is that of a loaded model, whose file has said it.
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
      functions: the traces of its own ``__call__``; None where it has none.
      arguments: names of the positional arguments of that call.
      signatures: its signatures by name.
      trainable: the variables that it calls trainable; None where it does not say.
    """

    functions: Sequence[Function] | None
    arguments: Sequence[str]
    signatures: Mapping[str, Function]
    trainable: Sequence[Any] | None


def of_model(model: Any) -> Interface:
    """Returns the interface of a loaded model."""
    known: dict[int, Any] = {}
    for variable in tf.train.TrackableView(model).descendants():
        if isinstance(variable, tf.Variable):
            known[id(variable)] = known[id(variable.handle)] = variable  # under a strategy it is captured itself

    def function_of(concrete: Any) -> Function:
        used = {id(captured): None for captured in concrete.captured_inputs}
        variables = [known[key] for key in used if key in known]
        graph = functools.partial(of_function, concrete, variables)
        return Function(concrete.structured_input_signature, concrete.structured_outputs, variables, graph)

    trainable = getattr(model, "trainable_variables", None)
    return Interface(
        [function_of(f) for f in model.__call__.concrete_functions] if callable(model) else None,
        _positional(model.__call__) if callable(model) else [],
        {name: function_of(f) for name, f in getattr(model, "signatures", {}).items()},
        None if trainable is None else [known[id(variable.handle)] for variable in trainable],
    )


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
        used = [variables[number] for number in dict.fromkeys(concrete.bound_inputs) if number in variables]
        inputs = decode_structure(concrete.canonicalized_input_signature)
        captured = [
            variables[number].name if number in variables else f"resource {number}" for number in concrete.bound_inputs
        ]
        graph_of = functools.partial(of_saved_function, meta_graph, name, value)
        effects = functools.partial(library.of_function, name, captured)
        return Function(inputs, decode_structure(concrete.output_signature), used, graph_of, effects)

    root = children(0)
    call = graph.nodes[root["__call__"]].function if "__call__" in root else None
    signatures = {
        name: graph.nodes[number].bare_concrete_function.concrete_function_name
        for name, number in (children(root["signatures"]) if "signatures" in root else {}).items()
    }
    trainable = children(root["trainable_variables"]).values() if "trainable_variables" in root else None
    return Interface(
        None if call is None else [function_of(name) for name in call.concrete_functions],
        [] if call is None else _argument_names(call.function_spec),
        {name: function_of(function) for name, function in signatures.items()},
        None if trainable is None else [variables[number] for number in trainable if number in variables],
    )


def with_effects(interface: Interface, meta_graph: Any) -> Interface:
    """Returns the interface of a model that was loaded, with what the signatures in its file do.

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
    """Returns the names of a saved function's positional arguments, without that of the object whose method it was."""
    names = list(decode_structure(function_spec.fullargspec).args)
    return names[1:] if function_spec.is_method or names[:1] == ["self"] else names
