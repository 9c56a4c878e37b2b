"""The description of a Keras model: it is read once, and each graph rebuilds the model from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from estimator_tl.backbones.input.contract import one_image
from estimator_tl.backbones.input.images import check_layout
from estimator_tl.backbones.input.range import Finding
from estimator_tl.backbones.keras.configs import HALF, rebuildable
from estimator_tl.backbones.keras.input import keras_finding
from estimator_tl.backbones.keras.layers import (
    called_as_saved,
    is_batch_norm,
    is_of_keras,
    is_random,
    saved_models_inside,
)
from estimator_tl.compat import keras, tf
from estimator_tl.errors import SOURCE, UserError
from estimator_tl.structure import SourceStructure, SourceVariable
from estimator_tl.tf_internals.keras.calls import inner_layers
from estimator_tl.tf_internals.keras.lookups import keep_vocabularies, set_weights, sized, vocabulary_weight_ids
from estimator_tl.types import KerasModel


class Description:
    """A Functional or Sequential model without its values.

    Attributes:
      structure: its variables and layers.
      output_shapes: static, of its outputs.
      images: the shape of one image, and what the model does to images; None for texts.
      takes_column: whether it takes texts as [batch, 1].
      is_random: see `Backbone`.
      one_device: see `Backbone`.
    """

    def __init__(
        self,
        model: KerasModel,
        handle: str,
        image_size: int | tuple[int, int] | None,
        rebuilding: Callable[[], AbstractContextManager[None]],
    ):
        """Reads an eager model.

        Args:
          model: with its values.
          handle: the handle that the user wrote.
          image_size: pixels, where the model does not fix them.
          rebuilding: returns a context in which the model's layers can be rebuilt.

        Raises:
          UserError: the model takes neither images of a known size nor texts, or has no variables.
        """
        self._rebuilding = rebuilding
        shape = _input_shape(model)
        self._frequencies = keep_vocabularies(model)
        image = None if _is_text(model) else one_image(shape, image_size)
        self.takes_column = image is None and len(shape) == 2
        # The order of a layer's variables depends on which are trainable, so all are, here and in `build`. The file
        # may hold a frozen model.
        model.trainable = True
        # The configuration has every layer frozen, so that rebuilding makes no batch-norm updates; `build` turns on
        # the updates of its mode.
        model.trainable = False
        self._class = keras.Sequential if isinstance(model, keras.Sequential) else keras.Model
        self._config = model.get_config()
        model.trainable = True
        keeps_inference, notes = called_as_saved(model, self._config)
        structure = _structure(handle, model, self._names(model))
        self.structure = dataclasses.replace(structure, keeps_inference=keeps_inference, notes=notes)
        self.output_shapes = [tensor.shape for tensor in model.outputs]
        self.is_random, self.one_device = is_random(model), saved_models_inside(model)
        self.images: tuple[tuple[int, int, int, int], Finding] | None = None
        if image:
            self.images = (image, keras_finding(model, image))

    def _names(self, model: KerasModel) -> list[str]:
        """Returns the names that the variables have in a graph.

        They differ from the model's names where nested models share names, or a user's layer names its variables.
        """
        names = [weight.name.removesuffix(":0") for weight in weights_of(model)]
        of_keras = all(is_of_keras(layer) for layer in inner_layers(model))
        if of_keras and len(set(names)) == len(names):
            return names
        with tf.Graph().as_default():
            names = [weight.name.removesuffix(":0") for weight in weights_of(self.rebuilt())]
        # In a graph, Keras changes the base classes of the model's classes. Making the model once more outside of a
        # graph changes them back, so that the program's earlier models work again.
        self.rebuilt()
        return names

    def rebuilt(self) -> Any:
        """Rebuilds the model in the current graph, with all layers trainable."""
        with self._rebuilding(), sized():
            model = self._class.from_config(rebuildable(self._config))
        for layer in (model, *inner_layers(model)):  # in a graph, a model does not pass this on to layers in lists
            layer.trainable = True
        if not tf.executing_eagerly():
            set_weights(model, self._frequencies)
        return model


def values_of(model: KerasModel, structure: SourceStructure) -> dict[str, Any]:
    """Returns the values of an eager model, with all layers trainable, by the names of its structure."""
    names = [variable.name for variable in structure.variables]
    return dict(zip(names, [_as_float32(weight.numpy()) for weight in weights_of(model)]))


def weights_of(model: KerasModel) -> list[Any]:
    """Returns all variables of a model in layer order, each once."""
    weights = {id(weight): weight for layer in model.layers for weight in layer.weights}
    excluded = vocabulary_weight_ids(model)
    return [weight for weight in weights.values() if id(weight) not in excluded]


def _dtype(weight: Any) -> str:
    """Returns the dtype that a weight has in a graph; see `rebuildable`."""
    name = str(tf.as_dtype(weight.dtype).name)
    return "float32" if name in HALF else name


def _as_float32(value: Any) -> Any:
    return value.astype("float32") if str(value.dtype) in HALF else value


def _structure(handle: str, model: KerasModel, graph_names: list[str]) -> SourceStructure:
    batch_norm = {
        id(w): id(layer.weights[0]) for layer in inner_layers(model) if is_batch_norm(layer) for w in layer.weights
    }
    owner: dict[int, str] = {}
    for layer in model.layers:
        for weight in layer.weights:
            owner.setdefault(id(weight), layer.name)
    trainable = {id(weight) for weight in model.trainable_weights}
    names = {id(weight): name for weight, name in zip(weights_of(model), graph_names)}
    variables = [
        SourceVariable(
            name=names[id(weight)],
            shape=tuple(weight.shape.as_list()),
            dtype=_dtype(weight),
            trainable=id(weight) in trainable,
            layer=owner[id(weight)],
            batch_norm=names.get(batch_norm.get(id(weight), 0)),
            statistic=id(weight) in batch_norm and id(weight) not in trainable,
        )
        for weight in weights_of(model)
    ]
    if not variables:
        raise UserError(f"{SOURCE} holds no variables, so there is nothing to transfer; choose a trained model.")
    return SourceStructure(handle, tuple(variables), layers=tuple(layer.name for layer in model.layers))


def _is_text(model: KerasModel) -> bool:
    """Returns whether a model takes strings and tokenizes them with its own layers."""
    inputs = getattr(model, "inputs", None) or ()
    return any(tensor.dtype == tf.string for tensor in inputs)


def _input_shape(model: KerasModel) -> tuple[int | None, ...]:
    """Returns the static shape of a model's only input, batch first; refuses inputs other than images and texts."""
    shape = model.input_shape
    if isinstance(shape, (list, dict)):
        raise UserError(f"{SOURCE} takes several inputs {shape}; use a model with one.")
    if _is_text(model):
        if len(shape) > 2 or shape[-1] not in (None, 1):
            raise UserError(f"{SOURCE} takes strings of shape {shape}; use a model that takes one text, (None, 1).")
    elif len(shape) != 4:
        raise UserError(
            f"{SOURCE} takes input of shape {shape}, not a batch of images, nor of strings; use such a model here."
        )
    else:
        check_layout(shape, "save it again behind keras.layers.Permute((3, 1, 2))")
    return tuple(shape)
