"""What a source takes: images of a size and a range, or text; and whether a tensor is that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.backbones.input.range import Finding, chosen_range
from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.specs import ImageSpec, InputSpec, TextSpec, linear_range


class TakesTextError(UserError):
    """Settings of images are given for a source that takes text."""


def resolve_size(handle: str, fixed: tuple[int | None, int | None], asked: int | tuple[int, int] | None) -> Any:
    """Returns (height, width): the source's own where it fixes them, else what the user asked for.

    Raises:
      UserError: they contradict each other, or neither says.
    """
    wanted = (asked, asked) if isinstance(asked, int) else asked
    result = []
    for index, side in enumerate(("height", "width")):
        own = fixed[index]
        want = None if wanted is None else wanted[index]
        if own is None and want is None:
            raise UserError(f"{handle} takes images of any size; say which with --image_size (e.g. 224).")
        if own is not None and want is not None and own != want:
            raise UserError(
                f"{handle} takes images of {side} {own} only, but --image_size asks for {want}; "
                "leave --image_size out, or choose another backbone."
            )
        result.append(own if own is not None else want)
    return tuple(result)


def one_image(
    handle: str, shape: Sequence[int | None], image_size: int | tuple[int, int] | None
) -> tuple[int, int, int, int]:
    """Returns the shape of one image in a batch by itself, for a source that takes images of a static shape.

    Args:
      handle: what the user called the source.
      shape: [batch, height, width, channels].
      image_size: see `resolve_size`.

    Raises:
      UserError: the size is not known, or another one is asked for.
    """
    height, width = resolve_size(handle, (shape[1], shape[2]), image_size)
    return (1, height, width, shape[3] or 3)


def images_spec(
    handle: str,
    shape: tuple[int, int, int, int],
    input_range: tuple[float, float] | None,
    finding: Finding | None,
) -> ImageSpec:
    """Returns the input contract of a source that takes images.

    Args:
      handle: what the user called the source.
      shape: see `one_image`.
      input_range: values that the source takes; by default, those that follow from `finding`, or else [0, 1].
      finding: what the source does to its input, if that is known.

    Raises:
      UserError: it does something from which no range follows, and none is given.
    """
    low, high = chosen_range(handle, finding, input_range)
    return ImageSpec(*shape[1:], linear_range(low, high), range_words((low, high)), (low, high))


def range_words(values: tuple[float, float]) -> str:
    """Returns a range for people, e.g. ``[0, 255]``."""
    return f"[{values[0]:g}, {values[1]:g}]"


def text_spec(handle: str, **of_pictures: Any) -> TextSpec:
    """Returns the input contract of a source that takes strings.

    Raises:
      TakesTextError: settings of images are given.
    """
    for name, value in of_pictures.items():
        if value is not None:
            raise TakesTextError(f"{handle} takes text, so {name} does not apply; leave it out.")
    return TextSpec()


def check_input(handle: str, inputs: Any, spec: InputSpec) -> Any:
    """Checks an input tensor against the contract.

    Returns:
      The tensor: string [batch], or float32 [batch, height, width, channels] with the static shape of the contract.

    Raises:
      UserError: wrong type, rank, size or channels.
    """
    if isinstance(inputs, (tf.RaggedTensor, tf.SparseTensor)):
        raise UserError(
            f"{handle} takes a dense tensor, but the input_fn gives a {type(inputs).__name__}; convert it there."
        )
    inputs = tf.convert_to_tensor(inputs)
    if isinstance(spec, TextSpec):
        if inputs.dtype != tf.string or inputs.shape.rank not in (1, None):
            raise UserError(
                f"{handle} takes text, string [batch], but the input_fn gives {inputs.dtype.name} {inputs.shape}; "
                "give the raw strings."
            )
        return inputs
    expected = tf.TensorShape([None, *spec.shape])
    if not expected.is_compatible_with(inputs.shape):
        raise UserError(
            f"{handle} takes images of shape {expected}, but the input_fn gives {inputs.shape}; "
            "resize in the input_fn, or use one of etl.inputs with this backbone's image_spec."
        )
    if not inputs.shape[1:].is_fully_defined():
        inputs = tf.ensure_shape(inputs, expected)
    return _as_float32(handle, inputs, spec)


def _as_float32(handle: str, images: Any, spec: ImageSpec) -> Any:
    """Returns images as float32 where that leaves no doubt about their range."""
    # Whole numbers are what a decoder gives, 0 to 255; they are right as they are for a source that takes these.
    as_decoded = images.dtype.is_integer and spec.range == (0.0, 255.0)
    if not images.dtype.is_floating and not as_decoded:
        raise UserError(
            f"{handle} takes images as float32, values {spec.range_text}, but the input_fn gives "
            f"{images.dtype.name}; for pixels of 0 to 255 return image_spec.preprocess(tf.cast(image, tf.float32)) "
            "there, with the image_spec of this backbone."
        )
    return images if images.dtype == tf.float32 else tf.cast(images, tf.float32)
