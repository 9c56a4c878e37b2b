"""Which image inputs of a source can be fed: the order of their dimensions, the batch, and the type of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError

_CHANNELS = (1, 3, 4)
_BYTES = (0.0, 255.0)


def check_layout(shape: Sequence[int | None], remedy: str) -> None:
    """Checks that a source takes images with their channels last.

    Args:
      shape: static, of its input with four dimensions, batch first.
      remedy: what to do about one that takes them first.

    Raises:
      UserError: it takes them first.
    """
    if shape[1] in _CHANNELS and shape[3] not in _CHANNELS:
        raise UserError(
            f"{SOURCE} takes images of shape {tuple(shape)}, with their channels first; they are fed as [batch, "
            f"height, width, channels], so {remedy}."
        )


def check_batch(size: int | None, can_map: bool) -> None:
    """Checks that a source takes batches of any size.

    Args:
      size: the static size of the batch that it takes.
      can_map: whether a source that takes one example at a time is called for each of a batch.

    Raises:
      UserError: it does not.
    """
    if size is not None and not (size == 1 and can_map):
        raise UserError(
            f"{SOURCE} takes batches of {size} only, and training, evaluation and serving need others; save it again "
            "with a batch of any size (None)."
        )


def check_type(dtype: Any) -> None:
    """Checks that images can be cast to the type that a source takes.

    Raises:
      UserError: they cannot.
    """
    if not dtype.is_floating and dtype != tf.uint8:
        raise UserError(
            f"{SOURCE} takes images of type {dtype.name}, for which no range of values is certain; save it again for "
            "float32 or uint8."
        )


def range_of(dtype: Any, asked: tuple[float, float] | None) -> tuple[float, float] | None:
    """Returns the range of values that a source takes, where the type of its input says so; else what was asked for.

    Raises:
      UserError: the source takes bytes, and another range was asked for.
    """
    if dtype != tf.uint8:
        return asked
    if asked is not None and tuple(asked) != _BYTES:
        raise UserError(
            f"{SOURCE} takes images of type uint8, with values in [0, 255]; leave --input_range out, or give 0,255."
        )
    return _BYTES


def cast(inputs: Any, dtype: Any) -> Any:
    """Returns inputs in the type that a source takes; values between whole numbers are rounded for one of bytes."""
    if inputs.dtype == dtype:
        return inputs
    if dtype == tf.uint8 and inputs.dtype.is_floating:
        return tf.saturate_cast(tf.round(inputs), tf.uint8)
    return tf.cast(inputs, dtype)
