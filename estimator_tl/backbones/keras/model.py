"""Keras 2 models as backbones: users' files and Keras Applications share this class.

The model is read once, eagerly. Each graph rebuilds it from its configuration.
The Scaffold brings the pretrained values into the Estimator's session, because
values that Keras assigns inside a model_fn stay in Keras's own session and are
lost.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from estimator_tl.backbones.base import Backbone, BuiltBackbone, NoLayersError
from estimator_tl.backbones.digest import values_digest
from estimator_tl.backbones.input.contract import check_input, images_spec, text_spec
from estimator_tl.backbones.input.range import Finding, Range
from estimator_tl.backbones.keras.cut import Features, cut, has_added, without_added
from estimator_tl.backbones.keras.description import Description, values_of, weights_of
from estimator_tl.backbones.keras.layers import set_mode
from estimator_tl.compat import tf
from estimator_tl.compat.keras2 import rebuilding
from estimator_tl.errors import SOURCE, UserError, about, check_known
from estimator_tl.specs import POOLINGS, ImageSpec, InputSpec
from estimator_tl.structure import CallMode
from estimator_tl.tf_internals.eager import freeing_at_once, return_memory, run_eagerly_in_thread
from estimator_tl.tf_internals.keras.calls import inner_layers, plain_variable
from estimator_tl.tf_internals.keras.lookups import sized
from estimator_tl.tf_internals.tpu import outside_compiled_step
from estimator_tl.types import KerasModel, Tensor

_ADDED = "losses and metrics that were added to the model itself (add_loss, add_metric) are left out"
_Image = tuple[int, int, int, int]


class KerasBackbone(Backbone):
    """A Functional or Sequential Keras 2 model that maps images or texts to features."""

    def __init__(
        self,
        handle: str,
        kind: str,
        load: Callable[[], Any],
        digest: Callable[[], str] | None,
        image_size: int | tuple[int, int] | None = None,
        input_range: Range | None = None,
        contract: Callable[[_Image, Range | None, Finding], ImageSpec] = images_spec,
        pooling: str = "avg",
        features: Features | None = None,
        drop_top: int = 0,
        custom_objects: Mapping[str, Any] | None = None,
        allow_code: bool = False,
    ):
        """Loads the model and reads its description.

        Args:
          handle: the handle that the user wrote.
          kind: the kind of backbone in words.
          load: returns the Keras model with its pretrained weights; called once, eagerly.
          digest: returns ``sha256:...`` of the model's content; None for a digest of its variables' values.
          image_size: pixels, where the model does not fix them.
          input_range: the values that the model takes, if the user sets them.
          contract: returns the input contract, as `images_spec` does.
          pooling: for outputs with height and width, or with tokens: avg, max, flatten or none.
          features: the layers to cut the model at; see `cut`.
          drop_top: how many layers to leave out at the end; see `cut`.
          custom_objects: classes and functions that the model's configuration names.
          allow_code: whether Lambda layers, which hold Python code, may be built.
        """
        self.handle = handle
        self.kind = kind
        self._digest = digest
        self.pooling = check_known("pooling", pooling, POOLINGS)
        self._rebuilding = functools.partial(rebuilding, dict(custom_objects or {}), allow_code)
        self._load = functools.partial(self._load_and_cut, load, features, drop_top)
        with about(handle):
            description, self._values, notes = run_eagerly_in_thread(functools.partial(self._describe, image_size))
            return_memory(sum(variable.size * 4 for variable in description.structure.variables))
            self.output_shape = self.joined_shape(description.output_shapes)
            if description.images is None:
                self.input_spec: InputSpec = text_spec(image_size=image_size, input_range=input_range)
            else:
                shape, self.finding = description.images
                self.input_spec = contract(shape, input_range, self.finding)
        structure = description.structure
        self._description, self.structure = description, dataclasses.replace(structure, notes=notes + structure.notes)
        self.is_random, self.one_device = description.is_random, description.one_device

    def _load_and_cut(
        self, load: Callable[[], Any], features: Features | None, drop_top: int
    ) -> tuple[Any, tuple[str, ...]]:
        """Returns the eager model up to its features, and notes about it."""
        with about(self.handle), self._rebuilding(), freeing_at_once():
            model = load()
            _check_one_graph(model)
            notes = (_ADDED,) if has_added(model) else ()
            if notes:
                model = without_added(model)
            if features is None and not drop_top:
                _check_one_output(model)
            return cut(model, features, drop_top), notes

    def _describe(self, image_size: Any) -> tuple[Description, dict[str, Any] | None, tuple[str, ...]]:
        model, notes = self._load()
        description = Description(model, self.handle, image_size, self._rebuilding)
        return description, values_of(model, description.structure), notes

    def digest(self) -> str:
        return self._digest() if self._digest else self._values_digest

    @functools.cached_property
    def _values_digest(self) -> str:
        return values_digest(self.values())

    def values(self) -> Mapping[str, Any]:
        if self._values is None:
            self._values = run_eagerly_in_thread(self._read_again)
        return self._values

    def _read_again(self) -> dict[str, Any]:
        model, _ = self._load()
        model.trainable = True  # as in the description, for the order
        return values_of(model, self.structure)

    def _hand_over(self) -> Mapping[str, Any]:
        """Returns the values and frees them here: a run needs them once, and they are as large as its variables."""
        values, self._values = self.values(), None
        return values

    def build(self, inputs: Tensor, mode: CallMode) -> BuiltBackbone:
        inputs = check_input(self.handle, inputs, self.input_spec)
        if self._description.takes_column:
            inputs = tf.expand_dims(inputs, -1)
        with outside_compiled_step():  # Keras makes placeholders
            model = self._description.rebuilt()
        variables = self._match(weights_of(model))
        names = {id(weight): v.name for weight, v in zip(weights_of(model), self.structure.variables)}
        batch_norms = set_mode(model, mode, names)
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
        """Returns the graph's variables by their names in the structure."""
        variables = self.structure.variables
        shapes = [tuple(weight.shape.as_list()) for weight in weights]
        if shapes != [variable.shape for variable in variables]:
            raise RuntimeError(f"{self.handle} was rebuilt with other variables than it was read with: {shapes}.")
        return {variable.name: plain_variable(weight) for variable, weight in zip(variables, weights)}


def _check_one_graph(model: KerasModel) -> None:
    if not hasattr(model, "input_shape") or not hasattr(model, "get_config"):
        raise NoLayersError(
            f"{SOURCE} is not a Functional or Sequential Keras model; "
            "call model.save('FOLDER', save_format='tf') and use that folder."
        )


def _check_one_output(model: KerasModel) -> None:
    if isinstance(model.output_shape, (list, dict)):
        raise UserError(
            f"{SOURCE} has several outputs {model.output_shape}; choose with features='LAYER', or join layers with "
            "features=['LAYER', 'LAYER2']."
        )


def regularization_losses(layers: Iterable[Any], names: Mapping[int, str]) -> list[tuple[str, Any]]:
    """Returns the regularization losses of layers, as pairs of a weight's name and its loss.

    Args:
      layers: the layers; inner layers are listed separately.
      names: of the weights to include, by `id`.
    """
    return [
        (names[id(weight)], tf.cast(regularizer(weight), tf.float32))
        for layer in layers
        for attribute, regularizer in vars(layer).items()
        for weight in [getattr(layer, attribute.removesuffix("_regularizer"), None)]
        if attribute.endswith("_regularizer") and callable(regularizer) and id(weight) in names
    ]
