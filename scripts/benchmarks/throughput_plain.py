"""Opens the same pretrained networks as hand-written code does, without estimator_tl."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from estimator_tl.backbones import Backbone
from estimator_tl.backbones.keras.weights import load_weights
from estimator_tl.backbones.saved_model.backbone import SavedModelBackbone
from estimator_tl.compat import hub, keras, tf
from estimator_tl.registry import parse_call

_SEED = 0
_OURS_ONLY = ("weights", "image_size", "pooling", "include_top")


@dataclasses.dataclass(frozen=True)
class InGraph:
    """A network built into the current graph, called for inference.

    Attributes:
      outputs: the output tensor before pooling.
      trainable: the trainable variables.
      losses: the regularization losses.
      init_fn: assigns the pretrained values in a session; None if the initializers do.
    """

    outputs: Any
    trainable: Sequence[Any]
    losses: Sequence[Any]
    init_fn: Callable[[Any], None] | None


class PlainNetwork(Protocol):
    """A pretrained network, for a graph or as a Keras layer."""

    def build(self, images: Any) -> InGraph:
        """Builds the network into the current graph."""

    def layer(self, trainable: bool) -> Any:
        """Returns the network as a new Keras layer with pretrained values."""


class PlainSavedModel:
    """A TF2 SavedModel folder."""

    def __init__(self, path: str):
        """Args: path: the folder."""
        self._path = path

    def build(self, images: Any) -> InGraph:
        model = tf.saved_model.load(self._path)
        signatures = [function.structured_input_signature for function in model.__call__.concrete_functions]
        switch = any(len(args) > 1 or kwargs for args, kwargs in signatures)
        outputs = model(images, training=False) if switch else model(images)
        losses = [loss() for loss in getattr(model, "regularization_losses", ())]
        return InGraph(outputs, list(model.trainable_variables), losses, None)

    def layer(self, trainable: bool) -> Any:
        return hub.KerasLayer(self._path, trainable=trainable)


class PlainKerasModel:
    """A Keras 2 model."""

    def __init__(self, open_model: Callable[[], Any]):
        """Args: open_model: returns the model with its pretrained values."""
        keras.utils.set_random_seed(_SEED)
        self._model = open_model()
        self._model.trainable = True
        self._values = self._model.get_weights()

    def build(self, images: Any) -> InGraph:
        model = keras.models.clone_model(self._model)
        outputs = model(images, training=False)

        def init_fn(session: Any) -> None:
            # One call: each new set of fetches makes the session prepare the graph again.
            feeds = {weight.initializer.inputs[1]: value for weight, value in zip(model.weights, self._values)}
            session.run([weight.initializer for weight in model.weights], feeds)

        return InGraph(outputs, list(model.trainable_variables), list(model.losses), init_fn)

    def layer(self, trainable: bool) -> Any:
        model = keras.models.clone_model(self._model)
        model.set_weights(self._values)
        model.trainable = trainable
        return model


def plain_network(handle: str, source: Backbone) -> PlainNetwork:
    """Opens the network of a handle without `etl.backbone`.

    Args:
      handle: a handle of `etl.backbone`.
      source: the backbone that `etl.backbone` opened for this handle; gives the kind of source and the image size.
    """
    if isinstance(source, SavedModelBackbone):
        return PlainSavedModel(source.path)
    if not handle.startswith("keras."):
        return PlainKerasModel(lambda: keras.models.load_model(handle, compile=False))
    call = parse_call(handle)
    weights = call.kwargs.get("weights", "imagenet")

    def open_application() -> Any:
        function = getattr(keras.applications, call.name.partition(".")[2])
        arguments = {key: value for key, value in call.kwargs.items() if key not in _OURS_ONLY}
        named = weights if weights in (None, "imagenet") else None
        model = function(include_top=False, weights=named, **{"input_shape": source.image_spec.shape, **arguments})
        if weights != named:
            load_weights(model, str(weights))
        return model

    return PlainKerasModel(open_application)
