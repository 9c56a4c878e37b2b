"""Finds what a Keras model does to its images, from the graph of its layers up to the first weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from estimator_tl.backbones.input.graph import InputGraph
from estimator_tl.backbones.input.range import Finding
from estimator_tl.backbones.input.sources import of_function
from estimator_tl.compat import keras, tf
from estimator_tl.tf_internals.keras.calls import inner_layers
from estimator_tl.types import KerasModel, Layer, Tensor

_UNTRACEABLE = Finding("layers that cannot be traced", None)


def keras_finding(model: KerasModel, shape: Sequence[int]) -> Finding:
    """Returns what a Functional or Sequential model does to its images. Eager only.

    Args:
      model: with its weights.
      shape: [1, height, width, channels].
    """
    try:
        graph = _trace(model, shape)
    except Exception:  # users' layers may raise anything
        return _UNTRACEABLE
    return graph.finding(shape, {layer.name for layer in inner_layers(model)})


def _trace(model: KerasModel, shape: Sequence[int]) -> InputGraph:
    try:
        head = head_of(model)
    except ValueError:  # Keras cannot cut the model there
        head = model
    function = tf.function(lambda images: head(images, training=False), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    return of_function(concrete, concrete.graph.variables)


def head_of(model: KerasModel) -> Any:
    """Returns the part of a model that ends with the first layers that have kernels, also in nested models."""
    ends = [tensor for node in _first_weighted(model) for tensor in _outputs(model, node)]
    return keras.Model(model.inputs, ends or model.outputs)


def _outputs(model: KerasModel, node: Any) -> Iterator[Any]:
    layer = node.layer
    if layer is not model and isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
        inputs = list(node.keras_inputs)
        yield from tf.nest.flatten(head_of(layer)(inputs if len(inputs) > 1 else inputs[0]))
    else:
        yield from tf.nest.flatten(node.outputs)


def _first_weighted(model: KerasModel) -> list[Any]:
    """Returns the first nodes that combine tensors that depend on the input alone with kernels."""
    is_plain: dict[int, bool] = {}
    first = []
    pending = [(_node_of(tensor), False) for tensor in model.outputs]
    seen: set[int] = set()
    while pending:
        node, is_done = pending.pop()
        sources = [_node_of(tensor) for tensor in node.keras_inputs]
        if is_done:
            plain = [is_plain[id(source)] for source in sources]
            is_plain[id(node)] = all(plain) and not _has_kernels(node.layer)
            if any(plain) and not is_plain[id(node)]:
                first.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            pending.append((node, True))
            pending.extend((source, False) for source in sources)
    return first


def _node_of(tensor: Tensor) -> Any:
    layer, index, _ = tensor._keras_history
    return layer.inbound_nodes[index]


def _has_kernels(layer: Layer) -> bool:
    """Returns whether a layer has weights with more than one number per channel; statistics have one."""
    return any(sum(size != 1 for size in weight.shape) > 1 for weight in layer.weights)
