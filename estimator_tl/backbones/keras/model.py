"""Keras 2 models as backbones: personal files and Keras Applications share this.

The model is read once, eagerly. Each graph rebuilds it from its configuration;
the pretrained values reach the Estimator's session through the Scaffold,
because values that Keras assigns inside a model_fn stay in Keras's own session
and are lost.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from estimator_tl.backbones.base import Backbone, BuiltBackbone
from estimator_tl.backbones.digest import values_digest
from estimator_tl.backbones.input.contract import check_input, one_image, text_spec
from estimator_tl.backbones.input.range import Finding
from estimator_tl.backbones.keras.configs import HALF, rebuildable
from estimator_tl.backbones.keras.cut import Features, cut, has_added, without_added
from estimator_tl.backbones.keras.input import keras_finding
from estimator_tl.backbones.keras.layers import (
    called_as_saved,
    is_batch_norm,
    is_of_keras,
    is_random,
    obey,
    saved_models_inside,
)
from estimator_tl.backbones.keras.shape import input_shape, is_text
from estimator_tl.compat import keras, tf
from estimator_tl.compat.keras2 import rebuilding
from estimator_tl.errors import UserError, check_known
from estimator_tl.specs import POOLINGS, ImageSpec
from estimator_tl.structure import CallMode, SourceStructure, SourceVariable
from estimator_tl.tf_internals.eager import freed_at_once, give_back, run_eagerly_apart
from estimator_tl.tf_internals.keras.calls import inner_layers, plain_variable
from estimator_tl.tf_internals.keras.lookups import keep_vocabularies, learned_of_data, set_weights, sized
from estimator_tl.tf_internals.tpu import outside_of_steps

_ADDED = "losses and metrics that were added to the model itself (add_loss, add_metric) are left out"
_Image = tuple[int, int, int, int]


class NoLayersError(UserError):
    """A Keras model has no layers that a graph could be rebuilt from; as a SavedModel it may be used."""


class KerasBackbone(Backbone):
    """A Functional or Sequential Keras 2 model that maps images or texts to features."""

    def __init__(
        self,
        handle: str,
        kind: str,
        load: Callable[[], Any],
        digest: Callable[[], str] | None,
        contract: Callable[[_Image, Finding], ImageSpec],
        image_size: int | tuple[int, int] | None = None,
        pooling: str = "avg",
        features: Features | None = None,
        drop_top: int = 0,
        custom_objects: Mapping[str, Any] | None = None,
        allow_code: bool = False,
    ):
        """Loads the model and takes its description.

        Args:
          handle: what the user called it.
          kind: the sort of source in words.
          load: returns the Keras model with its pretrained weights; called once, eagerly.
          digest: returns ``sha256:...`` of the source; None where that is of its variables' values.
          contract: returns what the model takes, for the shape of one image and what the model does to it.
          image_size: pixels, where the model does not fix them.
          pooling: for outputs with height and width, or with tokens: avg, max, flatten or none.
          features: where to cut the model, and
          drop_top: the same from its end; see `keras_cut.cut`.
          custom_objects: classes and functions that the model's configuration names.
          allow_code: whether Lambda layers, which hold Python code, may be built.
        """
        self.handle = handle
        self.kind = kind
        self._digest = digest
        self.pooling = check_known("pooling", pooling, POOLINGS)
        self._custom_objects = dict(custom_objects or {})
        self._allow_code = allow_code
        self._load = functools.partial(self._loaded, load, features, drop_top)
        self._values: dict[str, Any] | None = None
        self._notes: tuple[str, ...] = ()
        shape, finding = run_eagerly_apart(functools.partial(self._describe, image_size))
        give_back(sum(variable.size * 4 for variable in self.structure.variables))
        self.finding = finding
        self.input_spec = contract(shape, finding) if shape and finding else text_spec(handle, image_size=image_size)

    def _loaded(self, load: Callable[[], Any], features: Features | None, drop_top: int) -> Any:
        """Returns the eager model, cut."""
        with rebuilding(self._custom_objects, self._allow_code), freed_at_once():
            model = load()
            _check_one_graph(model, self.handle)
            if has_added(model):
                model, self._notes = without_added(model), (_ADDED,)
            if features is None and not drop_top:
                _check_one_output(model, self.handle)
            return cut(model, features, drop_top, self.handle)

    def _describe(self, image_size: int | tuple[int, int] | None) -> tuple[_Image | None, Finding | None]:
        """Reads the model's structure; returns the shape of one image and what is done to it, None for texts."""
        model = self._load()
        self._is_text = is_text(model)
        self._input_shape = input_shape(model, self.handle)
        self._frequencies = keep_vocabularies(model)
        image = None if self._is_text else one_image(self.handle, self._input_shape, image_size)
        # The order of a layer's variables depends on what is trainable; all on is the order here and in `build`.
        # A file may have been saved frozen, too.
        model.trainable = True
        # Rebuilt with every layer off, so that building a graph makes no batch-norm updates;
        # `build` turns on those of the call.
        model.trainable = False
        self._model_class = "Sequential" if isinstance(model, keras.Sequential) else "Model"
        self._config = model.get_config()
        model.trainable = True
        keeps_inference, notes = called_as_saved(model, self._config)
        structure = _structure(self.handle, model, self._names(model))
        self.structure = dataclasses.replace(structure, keeps_inference=keeps_inference, notes=(*self._notes, *notes))
        self._values = self._values_of(model)
        shape = model.output_shape
        self.output_shape = self.joined_shape(shape if isinstance(shape, list) else [shape])
        self.is_random = is_random(model)
        self.one_device = saved_models_inside(model)
        return image, keras_finding(model, image) if image else None

    def _names(self, model: Any) -> list[str]:
        """Returns the names that a graph gives the variables.

        They are the model's own but where nested models share names, or a layer of a user names its variables itself.
        """
        names = [weight.name.removesuffix(":0") for weight in _weights(model)]
        of_keras = all(is_of_keras(layer) for layer in inner_layers(model))
        if of_keras and len(set(names)) == len(names):
            return names
        with tf.Graph().as_default():
            names = [weight.name.removesuffix(":0") for weight in _weights(self._rebuilt())]
        # Keras has exchanged the bases of these classes for those of graphs; models that the program made before
        # work again when one is made outside of a graph.
        self._rebuilt()
        return names

    def _rebuilt(self) -> Any:
        with rebuilding(self._custom_objects, self._allow_code), sized():
            model = getattr(keras, self._model_class).from_config(rebuildable(self._config))
        for layer in (model, *inner_layers(model)):  # in a graph a model does not tell layers that it has in lists
            layer.trainable = True
        if not tf.executing_eagerly():
            set_weights(model, self._frequencies)
        return model

    def digest(self) -> str:
        return self._digest() if self._digest else self._values_digest

    @functools.cached_property
    def _values_digest(self) -> str:
        return values_digest(self.values())

    def values(self) -> Mapping[str, Any]:
        if self._values is None:
            self._values = run_eagerly_apart(self._read_again)
        return self._values

    def _read_again(self) -> dict[str, Any]:
        model = self._load()
        model.trainable = True  # as in the description, for the order
        return self._values_of(model)

    def _values_of(self, model: Any) -> dict[str, Any]:
        names = [variable.name for variable in self.structure.variables]
        return dict(zip(names, [_full(weight.numpy()) for weight in _weights(model)]))

    def _hand_over(self) -> Mapping[str, Any]:
        """Returns the values without keeping them: a run needs them once, and they are as large as its variables."""
        values, self._values = self.values(), None
        return values

    def build(self, inputs: Any, mode: CallMode) -> BuiltBackbone:
        inputs = check_input(self.handle, inputs, self.input_spec)
        if self._is_text and len(self._input_shape) == 2:
            inputs = tf.expand_dims(inputs, -1)
        with outside_of_steps():  # Keras makes placeholders
            model = self._rebuilt()
        variables = self._match(_weights(model))
        names = {id(weight): v.name for weight, v in zip(_weights(model), self.structure.variables)}
        batch_norms = obey(model, mode, names)
        with sized():
            features = model(inputs, training=mode.dropout)
        return BuiltBackbone(
            features=self.pool(features),
            variables=variables,
            updates=[update for layer in batch_norms for update in layer.updates],
            regularization_losses=regularization_losses(inner_layers(model), names),
            initial_values=self._hand_over,
        )

    def _match(self, weights: list[Any]) -> dict[str, Any]:
        """Returns the graph's variables by name of the structure."""
        described = self.structure.variables
        shapes = [tuple(weight.shape.as_list()) for weight in weights]
        if shapes != [variable.shape for variable in described]:
            raise RuntimeError(f"{self.handle} was rebuilt with other variables than it was read with: {shapes}.")
        return {variable.name: plain_variable(weight) for variable, weight in zip(described, weights)}


def _check_one_graph(model: Any, handle: str) -> None:
    if not hasattr(model, "input_shape") or not hasattr(model, "get_config"):
        raise NoLayersError(
            f"{handle} is not a Functional or Sequential Keras model; "
            "call model.save('FOLDER', save_format='tf') and use that folder."
        )


def _check_one_output(model: Any, handle: str) -> None:
    if isinstance(model.output_shape, (list, dict)):
        raise UserError(
            f"{handle} has several outputs {model.output_shape}; choose with features='LAYER', or join layers with "
            "features=['LAYER', 'LAYER2']."
        )


def _weights(model: Any) -> list[Any]:
    """Returns all variables of a model in layer order, each once."""
    found = {id(weight): weight for layer in model.layers for weight in layer.weights}
    apart = learned_of_data(model)
    return [weight for weight in found.values() if id(weight) not in apart]


def _dtype(weight: Any) -> str:
    """Returns the type that a graph gives a weight: see `rebuildable`."""
    name = str(tf.as_dtype(weight.dtype).name)
    return "float32" if name in HALF else name


def _full(value: Any) -> Any:
    return value.astype("float32") if str(value.dtype) in HALF else value


def _structure(handle: str, model: Any, own_names: list[str]) -> SourceStructure:
    batch_norm = {
        id(w): id(layer.weights[0]) for layer in inner_layers(model) if is_batch_norm(layer) for w in layer.weights
    }
    owner: dict[int, str] = {}
    for layer in model.layers:
        for weight in layer.weights:
            owner.setdefault(id(weight), layer.name)
    trainable = {id(weight) for weight in model.trainable_weights}
    names = {id(weight): name for weight, name in zip(_weights(model), own_names)}
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
        for weight in _weights(model)
    ]
    if not variables:
        raise UserError(f"{handle} holds no variables, so there is nothing to transfer; choose a trained model.")
    return SourceStructure(handle, tuple(variables), layers=tuple(layer.name for layer in model.layers))


def regularization_losses(layers: Iterable[Any], names: Mapping[int, str]) -> list[tuple[str, Any]]:
    """Returns the losses of layers' weights, as pairs of a weight's name and its loss.

    Args:
      layers: without those inside them.
      names: of the weights that count, by `id`.
    """
    return [
        (names[id(weight)], tf.cast(regularizer(weight), tf.float32))
        for layer in layers
        for attribute, regularizer in vars(layer).items()
        for weight in [getattr(layer, attribute.removesuffix("_regularizer"), None)]
        if attribute.endswith("_regularizer") and callable(regularizer) and id(weight) in names
    ]
