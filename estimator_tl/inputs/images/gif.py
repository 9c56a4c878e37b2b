"""Decodes the first frame of a GIF in the graph, because TensorFlow's op makes transparent pixels black."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat import tf
from estimator_tl.inputs.images.graph_bytes import int64, numbers, piece
from estimator_tl.types import Tensor

_EXTENSION, _CONTROL = 0x21, 0xF9
_WHITE = b"\xff\xff\xff"
_MOST_BLOCKS = 10_000


def decode(encoded: Tensor) -> Any:
    """Decodes the first frame.

    Args:
      encoded: scalar string.

    Returns:
      float32 [height, width, 3] in [0, 255]: RGB; white where it is transparent, and outside of the frame.
    """
    frame, control = _first_frame(encoded)
    wide, high = tf.unstack(numbers(encoded, 6, 2, "uint16"))
    left, top, width, height = tf.unstack(numbers(encoded, frame + 1, 4, "uint16"))
    solid = tf.cond(control > 0, lambda: _without_transparency(encoded, frame, control), lambda: encoded)
    # The op crops a frame with an offset, so the offset is set to 0 and the frame is padded afterwards.
    in_corner = tf.cond(left + top > 0, lambda: _replace(solid, frame + 1, bytes(4)), lambda: solid)
    pixels = tf.io.decode_image(in_corner, channels=3, expand_animations=False)[:height, :width]
    right, bottom = tf.maximum(wide - left - width, 0), tf.maximum(high - top - height, 0)
    return tf.pad(tf.cast(pixels, tf.float32), [[top, bottom], [left, right], [0, 0]], constant_values=255.0)


def _first_frame(encoded: Tensor) -> tuple[Any, Any]:
    """Returns the positions of the first frame's descriptor and of its control extension, 0 for no extension."""

    def next_bytes(position: Any) -> Any:
        return numbers(encoded, position, 2)

    def has_next(position: Any, control: Any, inside: Any) -> Any:
        del control
        return inside | tf.equal(next_bytes(position)[0], _EXTENSION)

    def next_block(position: Any, control: Any, inside: Any) -> tuple[Any, Any, Any]:
        first, second = tf.unstack(next_bytes(position))
        begins = ~inside & tf.equal(second, _CONTROL)
        step = tf.where(inside, 1 + first, int64(2))
        return position + step, tf.where(begins, position, control), ~inside | (first > 0)

    _, _, _, _, packed = tf.unstack(numbers(encoded, 6, 5))
    blocks = 13 + _palette_size(packed)
    start = (blocks, int64(0), tf.constant(False))
    frame, control, _ = tf.while_loop(has_next, next_block, start, maximum_iterations=_MOST_BLOCKS)
    return frame, control


def _palette_size(packed: Any) -> Any:
    """Returns the size in bytes of the palette that a byte of flags declares."""
    return tf.where(packed >= 0x80, 3 * tf.bitwise.left_shift(int64(2), packed % 8), int64(0))


def _without_transparency(encoded: Tensor, frame: Any, control: Any) -> Any:
    """Returns the file without transparency: the transparent color becomes white in the palette."""
    flags, _, _, color = tf.unstack(numbers(encoded, control + 3, 4))
    local, everywhere = numbers(encoded, frame + 9, 1)[0], numbers(encoded, 10, 1)[0]
    start = tf.where(local >= 0x80, frame + 10, int64(13))
    size = tf.where(local >= 0x80, _palette_size(local), _palette_size(everywhere))

    def whiten() -> Any:
        solid = _replace(encoded, control + 3, b"\0")
        return tf.cond(3 * color < size, lambda: _replace(solid, start + 3 * color, _WHITE), lambda: solid)

    return tf.cond(tf.equal(flags % 2, 1), whiten, lambda: encoded)


def _replace(encoded: Tensor, position: Any, value: bytes) -> Any:
    end = position + len(value)
    return tf.strings.join([piece(encoded, 0, position), value, piece(encoded, end, tf.strings.length(encoded))])
