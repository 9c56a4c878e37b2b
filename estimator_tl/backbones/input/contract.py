"""Input contracts of backbones: images of a size and a range, or text; and a check of tensors against them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from estimator_tl.backbones.base import TakesTextError
from estimator_tl.backbones.input.graph import InputGraph, finding_of
from estimator_tl.backbones.input.images import range_of
from estimator_tl.backbones.input.range import Finding, chosen_range
from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError
from estimator_tl.specs import ImageSpec, InputSpec, TextSpec, linear_range
from estimator_tl.types import Tensor


def one_image(shape: Sequence[int | None], image_size: int | tuple[int, int] | None) -> tuple[int, int, int, int]:
    """Returns the shape of a batch with one image, for a backbone that takes images of a static shape.

    Args:
      shape: [batch, height, width, channels].
      image_size: the size that the user sets, where the backbone does not fix it.

    Raises:
      UserError: the size is unknown, or the user sets another size than the backbone's.
    """
    requests = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    sides: list[Any] = []
    for side, size, request in zip(("height", "width"), shape[1:3], requests):
        if size is None and request is None:
            raise UserError(f"{SOURCE} takes images of any size; say which with --image_size (e.g. 224).")
        if size is not None and request is not None and size != request:
            raise UserError(
                f"{SOURCE} takes images of {side} {size} only, but --image_size asks for {request}; "
                "leave --image_size out, or choose another backbone."
            )
        sides.append(request if size is None else size)
    return (1, sides[0], sides[1], shape[3] or 3)


def images_spec(
    shape: tuple[int, int, int, int], input_range: tuple[float, float] | None, finding: Finding | None
) -> ImageSpec:
    """Returns the input contract of a backbone that takes images.

    Args:
      shape: see `one_image`.
      input_range: values that the backbone takes; by default, the range that follows from `finding`, or else [0, 1].
      finding: what the backbone does to its input, if known.

    Raises:
      UserError: no range follows from what the backbone does to its input, and the user sets none.
    """
    low, high = chosen_range(finding, input_range)
    return ImageSpec(*shape[1:], linear_range(low, high), range_words((low, high)), (low, high))


def read_input(
    shape: Sequence[int | None] | None,
    dtype: Any,
    graph: Callable[[], InputGraph],
    image_size: int | tuple[int, int] | None,
    input_range: tuple[float, float] | None,
) -> tuple[InputSpec, Finding | None]:
    """Returns what a backbone takes, and what it does to images before its first weights.

    Args:
      shape: static, of its images; None for texts.
      dtype: of its images.
      graph: returns its graph.
      image_size: see `one_image`.
      input_range: see `images_spec`.

    Raises:
      UserError: the size or the range is unknown, or the user's settings contradict the backbone.
    """
    if shape is None:
        return text_spec(image_size=image_size, input_range=input_range), None
    image = one_image(shape, image_size)
    finding = finding_of(graph, image)
    return images_spec(image, range_of(dtype, input_range), finding), finding


def range_words(values: tuple[float, float]) -> str:
    """Returns a range as text, e.g. ``[0, 255]``."""
    return f"[{values[0]:g}, {values[1]:g}]"


def text_spec(**image_settings: Any) -> TextSpec:
    """Returns the input contract of a backbone that takes strings.

    Args:
      **image_settings: settings that apply to images only.

    Raises:
      TakesTextError: one of the settings is not None.
    """
    for name, value in image_settings.items():
        if value is not None:
            raise TakesTextError(f"{SOURCE} takes text, so {name} does not apply; leave it out.")
    return TextSpec()


def check_input(handle: str, inputs: Tensor, spec: InputSpec) -> Any:
    """Checks an input tensor against the contract.

    Returns:
      The tensor: string [batch], or float32 [batch, height, width, channels] with the static shape of the contract.

    Raises:
      UserError: the tensor has the wrong type, rank, size or channels.
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


def _as_float32(handle: str, images: Tensor, spec: ImageSpec) -> Any:
    """Returns images as float32; refuses integers unless the backbone takes [0, 255]."""
    # A decoder gives integers from 0 to 255, which only such a backbone takes unchanged.
    as_decoded = images.dtype.is_integer and spec.range == (0.0, 255.0)
    if not images.dtype.is_floating and not as_decoded:
        raise UserError(
            f"{handle} takes images as float32, values {spec.range_text}, but the input_fn gives "
            f"{images.dtype.name}; for pixels of 0 to 255 return image_spec.preprocess(tf.cast(image, tf.float32)) "
            "there, with the image_spec of this backbone."
        )
    return images if images.dtype == tf.float32 else tf.cast(images, tf.float32)
