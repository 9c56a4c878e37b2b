"""Input contracts of Keras Applications: the preprocessing of their families, or of layers that are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from estimator_tl.backbones.input.contract import range_words
from estimator_tl.backbones.input.range import BYTES, SIGNED, UNIT, Range, UnknownRangeError
from estimator_tl.errors import SOURCE
from estimator_tl.specs import ImageSpec, linear_range
from estimator_tl.types import Tensor

_OPTION = "include_preprocessing"
#: Of values in [0, 255], as in the preprocessing layers of several families.
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255
#: The range that the preprocessing layers give, for families where it is the same for all networks.
_RANGES: Mapping[str, Range] = {"mobilenet_v3": SIGNED, "regnet": UNIT}
_STANDARD = "(x - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375] for x in [0, 255]"
_BY_128 = (-1.0, 255 / 128 - 1)


def family(function: Callable[..., Any]) -> str:
    """Returns the name of the module of an application."""
    return function.__module__.rpartition(".")[2]


def application_contract(
    function: Callable[..., Any],
    preprocess: Callable[[Any], Any],
    arguments: Mapping[str, Any],
    input_range: Range | None,
    shape: tuple[int, int, int, int],
) -> ImageSpec:
    """Returns the input contract of an application.

    Args:
      function: of `keras.applications`.
      preprocess: the family's function, for networks with all their layers.
      arguments: of the call of the function.
      input_range: values that the network takes, if the user sets them; they take precedence.
      shape: [1, height, width, channels] of the images.

    Raises:
      UnknownRangeError: the network is without its preprocessing layers, and their arithmetic is unknown.
    """
    spec: ImageSpec | None
    if arguments.get(_OPTION, True):
        text = f"keras.applications.{family(function)}.preprocess_input"
        spec = ImageSpec(*shape[1:], preprocess, text, _linear_range_of(preprocess))
    else:
        spec = _without_layers(function, shape)
    if input_range is not None and (spec is None or spec.range != tuple(input_range)):
        return _linear((float(input_range[0]), float(input_range[1])), shape)
    if spec is None:
        raise UnknownRangeError(
            f"{SOURCE} is without the layers that rescale its input, and their arithmetic is unknown; leave "
            f"{_OPTION}=False out, or say which values it takes with --input_range, e.g. -1,1."
        )
    return spec


def _without_layers(function: Callable[..., Any], shape: tuple[int, int, int, int]) -> ImageSpec | None:
    """Returns the contract of a network without its preprocessing layers; None where their arithmetic is unknown.

    The arithmetic is written down here, because building a large network only to read it would take a minute.
    """
    name, is_rgb = family(function), shape[3] == 3
    is_v2_b = function.__name__.startswith("EfficientNetV2B")
    if is_rgb and (name in ("resnet_rs", "convnext") or (name == "efficientnet_v2" and is_v2_b)):
        return ImageSpec(*shape[1:], _standardize, _STANDARD)
    ranges = {**_RANGES, "efficientnet_v2": _BY_128, "resnet_rs": UNIT}
    return _linear(ranges[name], shape) if name in ranges else None


def _linear(values: Range, shape: tuple[int, int, int, int]) -> ImageSpec:
    return ImageSpec(*shape[1:], linear_range(*values), range_words(values), values)


def _standardize(pixels: Tensor) -> Any:
    return (pixels - _IMAGENET_MEAN) / _IMAGENET_DEVIATION


def _linear_range_of(preprocess: Callable[[Any], Any]) -> Range | None:
    """Returns the range to which a function maps [0, 255] linearly; None where it is not linear."""
    image = np.random.RandomState(0).randint(0, 256, (1, 4, 4, 3)).astype(np.float32)
    low, high = (float(np.ravel(preprocess(np.full_like(image, value)))[0]) for value in BYTES)
    is_linear = np.allclose(preprocess(image.copy()), linear_range(low, high)(image), atol=1e-4)
    return (low, high) if is_linear else None
