"""Cuts Keras models at their own layers, or at layers of models nested in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from estimator_tl.backbones.base import feature_names
from estimator_tl.backbones.keras.objects import ADDED
from estimator_tl.compat import keras
from estimator_tl.errors import SOURCE, UserError, about, nearest
from estimator_tl.types import KerasModel, Tensor

#: The name of a layer, or several.
Features = Union[str, Sequence[str]]


def cut(model: KerasModel, features: Features | None, drop_top: int) -> Any:
    """Returns a model that ends at named layers and shares the layers of `model`.

    Args:
      model: Functional or Sequential.
      features: a layer, or ``nested/layer`` for a layer of a nested model, or several; the new model has their
        outputs in this order. By default, the outputs of `model`.
      drop_top: instead of `features`, how many layers to leave out at the end.

    Raises:
      UserError: there is no such layer, or the model cannot be cut there.
    """
    if drop_top and features:
        raise UserError(
            f"{SOURCE}: features={features!r} and drop_top={drop_top} both say where to cut; give one of them."
        )
    layers = [layer.name for layer in getattr(model, "layers", ())]
    if drop_top:
        if not isinstance(drop_top, int) or not 0 < drop_top < len(layers):
            raise UserError(
                f"{SOURCE}: drop_top={drop_top!r} must leave some of its {len(layers)} layers; give 1 or a few."
            )
        features = layers[-1 - drop_top]
    names = list(feature_names(features))
    return _cut(model, names) if names else model


def has_added(model: KerasModel) -> bool:
    """Returns whether a model has layers that Keras makes for `model.add_loss` and `model.add_metric`."""
    return any(type(layer).__name__ in ADDED for layer in getattr(model, "layers", ()))


def without_added(model: KerasModel) -> Any:
    """Returns a model of the layers that its outputs need; see `has_added`."""
    return keras.Model(model.inputs, _single_or_list(model.outputs), name=model.name)


def _single_or_list(tensors: list[Tensor]) -> Any:
    """Returns the only tensor of a list; or the list, if there are several."""
    return tensors if len(tensors) > 1 else tensors[0]


def _cut(model: KerasModel, names: list[str]) -> Any:
    if not getattr(model, "inputs", None) or not hasattr(model, "layers"):
        raise UserError(f"{SOURCE} has no graph of layers that could be cut at {names[0]!r}; leave features= out.")
    layers = [layer.name for layer in model.layers]
    inside: dict[str, list[str]] = {}
    for name in names:
        nested, inner = _split(model, name, layers)
        if inner:
            inside.setdefault(nested, []).append(inner)
    tensors = {name: _tensor(model, name) for name in names if name in layers}
    for nested, inners in inside.items():
        layer = model.get_layer(nested)
        with about(f"{nested!r} of {SOURCE}"):
            part = _cut(layer, inners)
        outputs = part(_tensor(model, nested, of_input=True))
        if len(inners) == 1:
            outputs = [outputs]
        tensors.update(zip([f"{nested}/{inner}" for inner in inners], outputs))
    try:
        return keras.Model(model.inputs, _single_or_list([tensors[name] for name in names]), name=model.name)
    except ValueError as error:
        if not inside:
            raise
        # The nested model and its cut copy would share layers and a name, which no configuration can express.
        nested, inners = next(iter(inside.items()))
        raise UserError(
            f"{SOURCE}: {nested}/{inners[0]} cannot be joined with what comes after {nested!r}; name layers inside of "
            f"{nested!r} only, or before it."
        ) from error


def _split(model: KerasModel, name: str, layers: list[str]) -> tuple[str, str]:
    """Returns a nested model and the name of a layer in it; the second is empty for a layer of the model itself."""
    if name in layers:
        return name, ""
    for nested in layers:
        if name.startswith(f"{nested}/") and hasattr(model.get_layer(nested), "layers"):
            return nested, name[len(nested) + 1 :]
    inner = [f"{layer.name}/{one.name}" for layer in model.layers for one in getattr(layer, "layers", ())]
    raise UserError(f"{SOURCE} has no layer {name!r}; {nearest(name, layers + inner)}")


def _tensor(model: KerasModel, name: str, of_input: bool = False) -> Any:
    """Returns a layer's output, or input, in the graph of the model.

    A layer may also have outputs elsewhere: nested models have separate graphs, and other models may share the layer.
    """
    layer = model.get_layer(name)
    tensors = []
    for index in range(len(layer.inbound_nodes)):
        tensor = layer.get_input_at(index) if of_input else layer.get_output_at(index)
        try:
            keras.Model(model.inputs, tensor)
        except ValueError:  # not reached from the inputs of this model
            continue
        tensors.append(tensor)
    if len(tensors) != 1 or isinstance(tensors[0], (list, dict)):
        count = "several inputs or outputs" if tensors else "no output of its own"
        raise UserError(f"{SOURCE}: layer {name!r} has {count} in this model; name another with features=.")
    return tensors[0]
