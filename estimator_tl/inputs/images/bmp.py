"""Decodes BMP files in the graph, because TensorFlow's op returns the palette indices instead of the colors.

It decodes palettes of 1, 2, 4 and 8 bits, and colors of 24 and 32 bits, with the bottom or the top row first. It does
not decode run lengths, JPEG or PNG inside, 16 bits, other orders of color and the header of OS/2 1.
"""

from __future__ import annotations

import struct
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.inputs.images.graph_bytes import int64, numbers, piece
from estimator_tl.inputs.images.orientation import is_one_of
from estimator_tl.types import Tensor

#: How many bytes at the start of a file decide whether it can be decoded.
HEAD = 70
_PALETTE_BITS = (1, 2, 4, 8)
_PLAIN, _MASKS, _ALPHA_MASKS = 0, 3, 6
_COMPRESSIONS = {1: "run lengths", 2: "run lengths", 4: "a JPEG inside", 5: "a PNG inside"}
_BLUE_GREEN_RED = (0xFF0000, 0xFF00, 0xFF)
_OPAQUE = 255.0


def why_not(head: bytes) -> str | None:
    """Returns why a BMP cannot be decoded, in words that follow its name; None where it can.

    Args:
      head: the first `HEAD` bytes of the file.
    """
    if len(head) < 54:
        return "is a BMP that ends in its header"
    header, _, _, _, bits, compression = struct.unpack("<IiiHHI", head[14:34])
    if header < 40:
        return "is a BMP of OS/2 1"
    if compression in _COMPRESSIONS:
        return f"is a BMP with {_COMPRESSIONS[compression]}"
    if compression == _PLAIN and bits in (*_PALETTE_BITS, 24, 32):
        return None
    if compression not in (_MASKS, _ALPHA_MASKS) or bits != 32:
        return f"is a BMP of {bits} bits a pixel"
    if len(head) < 66 or struct.unpack("<III", head[54:66]) != _BLUE_GREEN_RED:
        return "is a BMP whose colors are in another order"
    return None


def decode(encoded: Tensor) -> Any:
    """Decodes a BMP.

    Args:
      encoded: scalar string.

    Returns:
      float32 [height, width, 4] in [0, 255]: RGB and alpha. Alpha is the fourth byte of a pixel; where this byte is 0
      in the whole image, every pixel is opaque.
    """
    start, header, width, height = tf.unstack(numbers(encoded, 10, 4, "int32"))
    bits = numbers(encoded, 28, 1, "uint16")[0]
    compression = numbers(encoded, 30, 1, "int32")[0]
    plain = tf.equal(compression, _PLAIN) & is_one_of(bits, [*_PALETTE_BITS, 24, 32])
    masked = is_one_of(compression, [_MASKS, _ALPHA_MASKS]) & tf.equal(bits, 32)
    in_order = tf.reduce_all(tf.equal(numbers(encoded, 54, 3, "int32"), _BLUE_GREEN_RED))
    decodable = (plain | masked & in_order) & (header >= 40) & (width > 0)
    with tf.control_dependencies([tf.debugging.Assert(decodable, ["a BMP of a kind that is not decoded"])]):
        stride = (width * tf.identity(bits) + 31) // 32 * 4
    rows = _rows(encoded, start, height, stride)
    return tf.cond(
        bits <= 8,
        lambda: _from_palette(encoded, rows, header, width, bits),
        lambda: _from_bytes(rows, width, bits // 8),
    )


def _rows(encoded: Tensor, start: Any, height: Any, stride: Any) -> Any:
    """Returns uint8 [height, stride], the topmost row first."""
    data = piece(encoded, start, stride * tf.abs(height))
    # The reshape fails where the file ends before the last row.
    rows = tf.reshape(tf.io.decode_raw(data, tf.uint8), tf.stack([tf.abs(height), stride]))
    bottom_up = tf.boolean_mask([0], [height > 0])
    return tf.reverse(rows, bottom_up)


def _from_palette(encoded: Tensor, rows: Any, header: Any, width: Any, bits: Any) -> Any:
    size = 4 * tf.bitwise.left_shift(int64(1), bits)
    colors = tf.io.decode_raw(piece(encoded, 14 + header, size), tf.uint8, fixed_length=4 << 8)
    shifts = tf.range(8 - bits, -1, -bits)
    indices = tf.bitwise.right_shift(tf.cast(rows, tf.int64)[..., tf.newaxis], shifts)
    indices = tf.reshape(indices % tf.bitwise.left_shift(int64(1), bits), tf.stack([tf.shape(rows, tf.int64)[0], -1]))
    rgb = tf.gather(tf.reshape(colors, [-1, 4]), indices[:, :width])[..., 2::-1]
    return _with_alpha(rgb, _OPAQUE)


def _from_bytes(rows: Any, width: Any, size: Any) -> Any:
    pixels = tf.reshape(rows[:, : width * size], tf.stack([tf.shape(rows, tf.int64)[0], width, size]))
    alpha = tf.cast(pixels[..., 3:], tf.float32)  # depth 0 for 24 bits
    return _with_alpha(pixels[..., 2::-1], tf.cond(tf.reduce_any(alpha > 0), lambda: alpha[..., 0], lambda: _OPAQUE))


def _with_alpha(rgb: Any, alpha: Any) -> Any:
    rgb = tf.cast(rgb, tf.float32)
    alpha = tf.broadcast_to(alpha, tf.shape(rgb)[:2])
    return tf.concat([rgb, alpha[..., tf.newaxis]], -1)
