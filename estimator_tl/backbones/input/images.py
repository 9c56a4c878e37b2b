"""Checks of a backbone's image input: the order of the dimensions, the batch size, and the dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError
from estimator_tl.types import Tensor

_CHANNELS = (1, 3, 4)
_BYTES = (0.0, 255.0)


def check_layout(shape: Sequence[int | None], remedy: str) -> None:
    """Checks that a backbone takes images with their channels last.

    Args:
      shape: static, of its input with four dimensions, batch first.
      remedy: advice for a backbone with channels first.

    Raises:
      UserError: the backbone takes images with their channels first.
    """
    if shape[1] in _CHANNELS and shape[3] not in _CHANNELS:
        raise UserError(
            f"{SOURCE} takes images of shape {tuple(shape)}, with their channels first; they are fed as [batch, "
            f"height, width, channels], so {remedy}."
        )


def check_batch(size: int | None, can_map: bool) -> None:
    """Checks that a backbone takes batches of any size.

    Args:
      size: the static size of the batch that it takes.
      can_map: whether the caller can call the backbone once for each example of a batch.

    Raises:
      UserError: the backbone takes batches of one size only.
    """
    if size is not None and not (size == 1 and can_map):
        raise UserError(
            f"{SOURCE} takes batches of {size} only, and training, evaluation and serving need others; save it again "
            "with a batch of any size (None)."
        )


def check_type(dtype: Any) -> None:
    """Checks that images can be cast to the type that a backbone takes.

    Raises:
      UserError: the type is an integer other than uint8.
    """
    if not dtype.is_floating and dtype != tf.uint8:
        raise UserError(
            f"{SOURCE} takes images of type {dtype.name}, for which no range of values is certain; save it again for "
            "float32 or uint8."
        )


def range_of(dtype: Any, input_range: tuple[float, float] | None) -> tuple[float, float] | None:
    """Returns [0, 255] for a backbone that takes uint8, and `input_range`, the user's setting, for others.

    Raises:
      UserError: the backbone takes uint8, and the user sets another range.
    """
    if dtype != tf.uint8:
        return input_range
    if input_range is not None and tuple(input_range) != _BYTES:
        raise UserError(
            f"{SOURCE} takes images of type uint8, with values in [0, 255]; leave --input_range out, or give 0,255."
        )
    return _BYTES


def cast(inputs: Tensor, dtype: Any) -> Any:
    """Casts inputs to the type that a backbone takes; for uint8 it rounds and clips the values."""
    if inputs.dtype == dtype:
        return inputs
    if dtype == tf.uint8 and inputs.dtype.is_floating:
        return tf.saturate_cast(tf.round(inputs), tf.uint8)
    return tf.cast(inputs, dtype)
