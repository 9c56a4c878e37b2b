"""Where a Keras model is cut: at its own layers, or at those of the models nested in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from estimator_tl.backbones.base import feature_names
from estimator_tl.backbones.keras.objects import ADDED
from estimator_tl.compat import keras
from estimator_tl.errors import SOURCE, UserError, about, nearest

#: The name of a layer, or several.
Features = Union[str, Sequence[str]]


def cut(model: Any, features: Features | None, drop_top: int) -> Any:
    """Returns a model that ends at named layers, made of the layers of `model`.

    Args:
      model: Functional or Sequential.
      features: a layer, also ``nested/layer`` of a nested model, or several, whose outputs the new model then gives
        in that order; the model's own outputs by default.
      drop_top: how many layers to leave out at the end, instead.

    Raises:
      UserError: there is no such layer, or no such place to cut.
    """
    if drop_top and features:
        raise UserError(
            f"{SOURCE}: features={features!r} and drop_top={drop_top} both say where to cut; give one of them."
        )
    known = [layer.name for layer in getattr(model, "layers", ())]
    if drop_top:
        if not isinstance(drop_top, int) or not 0 < drop_top < len(known):
            raise UserError(
                f"{SOURCE}: drop_top={drop_top!r} must leave some of its {len(known)} layers; give 1 or a few."
            )
        features = known[-1 - drop_top]
    names = list(feature_names(features))
    return _cut(model, names) if names else model


def has_added(model: Any) -> bool:
    """Returns whether a model holds layers that Keras made of losses and metrics that were added to it."""
    return any(type(layer).__name__ in ADDED for layer in getattr(model, "layers", ()))


def without_added(model: Any) -> Any:
    """Returns a model of the layers that its outputs need; see `has_added`."""
    outputs = model.outputs if len(model.outputs) > 1 else model.outputs[0]
    return keras.Model(model.inputs, outputs, name=model.name)


def _cut(model: Any, names: list[str]) -> Any:
    if not getattr(model, "inputs", None) or not hasattr(model, "layers"):
        raise UserError(f"{SOURCE} has no graph of layers that could be cut at {names[0]!r}; leave features= out.")
    known = [layer.name for layer in model.layers]
    inside: dict[str, list[str]] = {}
    for name in names:
        nested, inner = _split(model, name, known)
        if inner:
            inside.setdefault(nested, []).append(inner)
    tensors = {name: _tensor(model, name) for name in names if name in known}
    for nested, inners in inside.items():
        layer = model.get_layer(nested)
        with about(f"{nested!r} of {SOURCE}"):
            part = _cut(layer, inners)
        outputs = part(_tensor(model, nested, of_input=True))
        tensors.update(zip([f"{nested}/{inner}" for inner in inners], outputs if len(inners) > 1 else [outputs]))
    found = [tensors[name] for name in names]
    try:
        return keras.Model(model.inputs, found if len(found) > 1 else found[0], name=model.name)
    except ValueError as error:
        if not inside:
            raise
        # Two nested models, whole and cut, would share layers and a name, which a configuration cannot say.
        nested, inners = next(iter(inside.items()))
        raise UserError(
            f"{SOURCE}: {nested}/{inners[0]} cannot be joined with what comes after {nested!r}; name layers inside of "
            f"{nested!r} only, or before it."
        ) from error


def _split(model: Any, name: str, known: list[str]) -> tuple[str, str]:
    """Returns the nested model and what is named in it; an empty string for a layer of the model itself."""
    if name in known:
        return name, ""
    for nested in known:
        if name.startswith(f"{nested}/") and hasattr(model.get_layer(nested), "layers"):
            return nested, name[len(nested) + 1 :]
    inner = [f"{layer.name}/{one.name}" for layer in model.layers for one in getattr(layer, "layers", ())]
    raise UserError(f"{SOURCE} has no layer {name!r}; {nearest(name, known + inner)}")


def _tensor(model: Any, name: str, of_input: bool = False) -> Any:
    """Returns a layer's output, or input, in the graph of the model.

    A nested model has a graph of its own besides, and a layer may also have been called elsewhere.
    """
    layer = model.get_layer(name)
    found = []
    for index in range(len(layer.inbound_nodes)):
        tensor = layer.get_input_at(index) if of_input else layer.get_output_at(index)
        try:
            keras.Model(model.inputs, tensor)
        except ValueError:  # not reached from the inputs of this model
            continue
        found.append(tensor)
    if len(found) != 1 or isinstance(found[0], (list, dict)):
        count = "several inputs or outputs" if found else "no output of its own"
        raise UserError(f"{SOURCE}: layer {name!r} has {count} in this model; name another with features=.")
    return found[0]
