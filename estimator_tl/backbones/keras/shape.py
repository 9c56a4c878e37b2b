"""What a Keras model takes: images or texts."""

from __future__ import annotations

from typing import Any

from estimator_tl.backbones.input.images import check_layout
from estimator_tl.compat import tf
from estimator_tl.errors import UserError


def is_text(model: Any) -> bool:
    """Returns whether a model takes strings, which it splits and looks up by itself."""
    inputs = getattr(model, "inputs", None) or ()
    return any(tensor.dtype == tf.string for tensor in inputs)


def input_shape(model: Any, handle: str) -> tuple[int | None, ...]:
    """Returns the static shape of a model's one input, batch first.

    Raises:
      UserError: it takes several, or neither images nor texts.
    """
    shape = model.input_shape
    if isinstance(shape, (list, dict)):
        raise UserError(f"{handle} takes several inputs {shape}; use a model with one.")
    if is_text(model):
        if len(shape) > 2 or shape[-1] not in (None, 1):
            raise UserError(f"{handle} takes strings of shape {shape}; use a model that takes one text, (None, 1).")
    elif len(shape) != 4:
        raise UserError(
            f"{handle} takes input of shape {shape}, not a batch of images, nor of strings; use such a model here."
        )
    else:
        check_layout(handle, shape, "save it again behind keras.layers.Permute((3, 1, 2))")
    return tuple(shape)
