"""Finds what the layers of a Keras model do in training, and sets them to the mode of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from estimator_tl.backbones.safety import parts
from estimator_tl.compat import keras
from estimator_tl.structure import CallMode
from estimator_tl.tf_internals.keras.calls import fix_training, inner_layers, is_random_by_design, takes_training
from estimator_tl.types import KerasModel, Layer

_BATCH_NORM = {"BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2", "SyncBatchNormalization"}
# Attributes that make layers random in training; 0 turns each off.
_RANDOM_RATES = ("rate", "stddev", "drop_path_rate", "dropout", "recurrent_dropout")
_OPERATIONS = ("TFOpLambda", "SlicingOpLambda")  # layers that call TensorFlow functions
_KERAS = f"{keras.Model.__module__.partition('.')[0]}."


def is_batch_norm(layer: Layer) -> bool:
    """Returns whether a layer is Keras's batch norm, or a user's class derived from it."""
    return any(kind.__name__ in _BATCH_NORM for kind in type(layer).__mro__)


def is_of_keras(layer: Layer) -> bool:
    """Returns whether a layer's class is one of Keras's own."""
    return type(layer).__module__.startswith(_KERAS)


def is_random(model: KerasModel) -> bool:
    """Returns whether a model may draw random numbers in training."""
    return any(map(_draws, inner_layers(model)))


def _draws(layer: Layer) -> bool:
    return bool(_rates(layer)) or _augments(layer)


def _rates(layer: Layer) -> list[str]:
    """Returns the attributes that make a layer random and are not 0."""
    values = {name: getattr(layer, name, None) for name in _RANDOM_RATES}
    return [name for name, value in values.items() if isinstance(value, (int, float)) and value]


def _augments(layer: Layer) -> bool:
    return is_random_by_design(layer) and all(not hasattr(layer, name) for name in _RANDOM_RATES)


def saved_models_inside(model: KerasModel) -> str:
    """Returns, as a clause about a model, which of its layers load a SavedModel; empty where none does."""
    names = [layer.name for layer in inner_layers(model) if type(layer).__module__.startswith("tensorflow_hub")]
    if not names:
        return ""
    return f"holds a SavedModel in its layer {', '.join(names)}, which each replica would load separately"


def has_statistics(layer: Layer) -> bool:
    """Returns whether a layer, other than batch norm, has variables that gradients do not move, outside of its parts.

    In training it may write to them: spectral normalization does, and a SavedModel inside (`hub.KerasLayer`) may.
    """
    inner = {id(weight) for part in inner_layers(layer) for weight in part.weights}
    trainable = {id(weight) for weight in layer.trainable_weights}
    weights = [weight for weight in layer.weights if id(weight) not in inner]
    return not is_batch_norm(layer) and any(id(weight) not in trainable for weight in weights)


def set_mode(model: KerasModel, mode: CallMode, names: Mapping[int, str]) -> list[Any]:
    """Sets every layer of a model to a mode, regardless of how the model was saved, and returns its batch norms.

    Args:
      model: all of its layers are trainable.
      mode: see `CallMode`.
      names: of its variables, by `id`.
    """
    layers = inner_layers(model)
    batch_norms = [layer for layer in layers if is_batch_norm(layer)]
    resting = [layer for layer in layers if _stays_in_inference(layer)]
    for layer in layers:
        if not mode.dropout and (is_of_keras(layer) or is_random_by_design(layer)):
            _turn_off_randomness(layer)
        if takes_training(layer) and layer not in batch_norms:
            fix_training(layer, mode.dropout and layer not in resting)
    for layer in batch_norms:
        layer.trainable = names[id(layer.weights[0])] in mode.train_batch_norm
        fix_training(layer, layer.trainable)
    return batch_norms


def _turn_off_randomness(layer: Layer) -> None:
    """Sets the rates of a layer to 0, because a user's dropout may ignore `training`."""
    for name in _rates(layer):
        if not isinstance(getattr(type(layer), name, None), property):  # a recurrent layer has its cell's rates
            setattr(layer, name, 0.0)


def called_as_saved(model: KerasModel, config: Any) -> tuple[bool, tuple[str, ...]]:
    """Returns whether dropout layers were saved as called in inference mode, and notes for people about calls.

    Args:
      model: the model from the file.
      config: its configuration, which has the calls with a fixed `training`: ``base(x, training=False)``.
    """
    layers: dict[str, list[Any]] = {}
    for layer in inner_layers(model):
        layers.setdefault(layer.name, []).extend([layer, *inner_layers(layer)])
    names_by_value = {
        value: [name for name in _names_called_with(config, value) if any(map(_uses_training, layers.get(name, ())))]
        for value in (False, True)
    }
    notes = [
        f"{', '.join(names)}: saved as called with training={value}; the plan above decides in its place"
        for value, names in names_by_value.items()
        if names
    ]
    in_inference = [layer.name for layer in inner_layers(model) if _stays_in_inference(layer)]
    if in_inference:
        notes.append(
            f"{', '.join(in_inference)}: called in inference mode throughout, as training mode writes to its variables"
        )
    if any(getattr(layer, "compute_dtype", "") == "float16" for layer in inner_layers(model)):
        notes.append("it computes in float16, here without loss scaling: gradients below 6e-8 are 0")
    return any(_draws(layer) for name in names_by_value[False] for layer in layers[name]), tuple(notes)


def _names_called_with(config: Any, value: bool) -> list[str]:
    return list(dict.fromkeys(name for name, training in _fixed_calls(config) if training is value))


def _uses_training(layer: Layer) -> bool:
    """Returns whether a layer may behave differently in training than in inference."""
    return is_batch_norm(layer) or _draws(layer) or (takes_training(layer) and not is_of_keras(layer))


def _stays_in_inference(layer: Layer) -> bool:
    return takes_training(layer) and has_statistics(layer)


def _fixed_calls(config: Any) -> Iterator[tuple[str, bool]]:
    """Yields the name of a layer and the value of `training`, for each call that fixes it."""
    for part in parts(config):
        if part.get("class_name") in _OPERATIONS:
            continue
        settings = part.get("config")
        name = settings.get("name") if isinstance(settings, dict) else None
        for value in _training_arguments(part.get("inbound_nodes")):
            yield str(part.get("name") or name), value


def _training_arguments(nodes: Any) -> Iterator[bool]:
    """Yields the values of `training` in the calls of a layer, in either of Keras's formats."""
    if isinstance(nodes, dict):
        if isinstance(nodes.get("training"), (bool, int)):
            yield bool(nodes["training"])
        nodes = list(nodes.values())
    if isinstance(nodes, (list, tuple)):
        for node in nodes:
            yield from _training_arguments(node)
