"""Keras Applications by name: ``keras.MobileNetV2(alpha=0.35)``."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from estimator_tl.backbones.digest import file_digest
from estimator_tl.backbones.keras.application_input import application_contract, family
from estimator_tl.backbones.keras.cut import Features
from estimator_tl.backbones.keras.model import KerasBackbone
from estimator_tl.backbones.keras.weights import load_weights
from estimator_tl.compat import keras
from estimator_tl.compat.keras2 import same_random_weights
from estimator_tl.errors import SOURCE, UserError, first_line, nearest
from estimator_tl.registry import Call

# Image sizes of the papers, where they differ from 224.
_DEFAULT_SIZE = {
    "Xception": 299, "InceptionV3": 299, "InceptionResNetV2": 299, "NASNetLarge": 331,
    "EfficientNetB1": 240, "EfficientNetB2": 260, "EfficientNetB3": 300, "EfficientNetB4": 380,
    "EfficientNetB5": 456, "EfficientNetB6": 528, "EfficientNetB7": 600,
    "EfficientNetV2B1": 240, "EfficientNetV2B2": 260, "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384, "EfficientNetV2M": 480, "EfficientNetV2L": 480,
}  # fmt: skip


def names() -> list[str]:
    """Returns the names of all Keras Applications."""
    return sorted(n for n in dir(keras.applications) if n[0].isupper() and callable(getattr(keras.applications, n)))


def keras_application(
    call: Call,
    handle: str,
    image_size: int | tuple[int, int] | None = None,
    pooling: str = "avg",
    input_range: tuple[float, float] | None = None,
    features: Features | None = None,
) -> KerasBackbone:
    """Builds the backbone that a spec such as ``keras.MobileNet(alpha=0.25, weights='w.h5')`` names.

    Args:
      call: the parsed spec; its name begins with ``keras.``. Besides the
        arguments of the Keras function it takes `weights` (a path, 'imagenet' or
        None, which always begins with the same random values), `pooling`, `image_size`, `input_range` and `features`.
      handle: the spec as the user wrote it.
      image_size: pixels; by default, the size in the network's paper.
      pooling: avg, max, flatten or none.
      input_range: the values that the network takes; by default, its family's preprocessing. Without preprocessing
        layers (``include_preprocessing=False``), the default is what these layers would do.
      features: a layer or a list of layers, as for `keras_file`.

    Raises:
      UserError: the name or an argument is unknown, or the weights are missing or do not fit.
    """
    name = call.name.partition(".")[2]
    if name not in names():
        raise UserError(f"unknown Keras application {name!r}; {nearest(name, names(), limit=40)}")
    function = getattr(keras.applications, name)
    arguments = _arguments(function, call, handle)
    image_size = arguments.pop("image_size", image_size)
    pooling = arguments.pop("pooling", pooling)
    features = arguments.pop("features", features)
    input_range = arguments.pop("input_range", input_range)
    weights = arguments.pop("weights", "imagenet")
    size = image_size or _DEFAULT_SIZE.get(name, 224)
    height, width = (size, size) if isinstance(size, int) else size
    arguments.setdefault("input_shape", (height, width, 3))
    application = KerasBackbone(
        handle=handle,
        kind=f"Keras application {name}, weights: {weights or 'none (random)'}",
        load=functools.partial(_build, function, weights, arguments),
        digest=None if weights == "imagenet" else functools.partial(_digest, handle, weights),
        input_range=input_range,
        contract=lambda shape, values, _: application_contract(
            function, _preprocess(function), arguments, values, shape
        ),
        pooling=pooling or "avg",
        features=features,
    )
    application.has_content = weights is not None
    return application


def _arguments(function: Callable[..., Any], call: Call, handle: str) -> dict[str, Any]:
    if call.args:
        raise UserError(f"name the arguments of {handle}, e.g. {call.name}(weights='PATH').")
    names = {*inspect.signature(function).parameters, "image_size", "input_range", "features"} - {
        "kwargs",
        "classes",
        "classifier_activation",
    }
    for key in call.kwargs:
        if key not in names:
            raise UserError(f"{call.name} has no argument {key!r}; {nearest(key, sorted(names))}")
    if call.kwargs.get("include_top"):
        raise UserError(f"{handle} asks for include_top=True; leave it out, the head of this run replaces the top.")
    return {key: value for key, value in call.kwargs.items() if key != "include_top"}


def _build(function: Callable[..., Any], weights: str | None, arguments: dict[str, Any]) -> Any:
    from_file = weights is not None and weights != "imagenet"
    if from_file and not os.path.isfile(str(weights)):
        raise UserError(f"weights file {weights!r} of {SOURCE} does not exist; give a path, 'imagenet' or None.")
    try:
        with same_random_weights():  # so that a run with weights=None can be repeated
            model = function(include_top=False, weights=None if from_file else weights, **arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"{SOURCE}: {first_line(error)}; correct the arguments.") from error
    except Exception as error:
        if weights == "imagenet" and "URL" in str(error):
            cache = os.path.join(os.path.expanduser("~"), ".keras", "models")
            remedy = f"put the file into {cache}"
            if family(function) != "efficientnet":  # Keras builds one layer less if its weights come from a path
                remedy += ", or give weights='PATH'"
            raise UserError(f"{SOURCE}: the ImageNet weights cannot be downloaded here; {remedy}.") from error
        raise
    if from_file:
        load_weights(model, str(weights))
    return model


def _preprocess(function: Callable[..., Any]) -> Callable[[Any], Any]:
    module = getattr(keras.applications, family(function), None) or sys.modules[function.__module__]
    return lambda pixels: module.preprocess_input(pixels, data_format="channels_last")


def _digest(handle: str, weights: str | None) -> str:
    if weights is None:
        return f"sha256:{hashlib.sha256(handle.encode()).hexdigest()}"
    return file_digest(weights)
