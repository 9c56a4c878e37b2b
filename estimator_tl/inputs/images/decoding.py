"""Decodes images in the graph: upright, and composited on white."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.inputs.images import bmp, gif, orientation
from estimator_tl.inputs.images.graph_bytes import numbers, piece
from estimator_tl.tf_internals.graphs.functions import traced
from estimator_tl.tf_internals.graphs.placement import on_cpu
from estimator_tl.types import Tensor

_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # for red, green and blue, as in libjpeg and libpng
#: The kinds of images that are decoded, each with the offset and the bytes of its signature.
KINDS = {
    "JPEG": (0, b"\xff\xd8\xff"),
    "PNG": (0, b"\x89PNG\r\n\x1a\n"),
    "GIF": (0, b"GIF8"),
    "BMP": (0, b"BM"),
    "WebP": (8, b"WEBP"),
}
_WITH_ALPHA = (4, 6)  # color types in a PNG's header


def decode_pixels(encoded: Tensor, channels: int) -> Any:
    """Decodes an image of any size as a viewer shows it.

    The EXIF orientation is applied, and transparency is composited on white. Of an animation the first frame is used.

    Args:
      encoded: scalar string: JPEG, PNG, GIF, BMP or, where TensorFlow decodes it, WebP.
      channels: 1 (grey) or 3 (RGB).

    Returns:
      float32 [height, width, channels] in [0, 255].
    """
    return orientation.upright(*decode_stored(encoded, channels))


def decode_stored(encoded: Tensor, channels: int, kinds: Collection[str] = tuple(KINDS)) -> tuple[Any, Any]:
    """Decodes an image like `decode_pixels`, but leaves it in the stored orientation.

    Args:
      encoded: scalar string.
      channels: 1 or 3.
      kinds: the kinds of images, from `KINDS`, that may occur. With fewer kinds the graph is smaller and starts
        faster, because TensorFlow also processes the parts of a graph that it never runs.

    Returns:
      float32 [height, width, channels] in [0, 255], and the EXIF orientation to pass to `upright`, int64 1 to 8.
    """
    pixels, exif_orientation = _function(channels, tuple(kind for kind in KINDS if kind in kinds))(encoded)
    pixels.set_shape([None, None, channels])
    return pixels, exif_orientation


@functools.lru_cache(maxsize=64)
def _function(channels: int, kinds: tuple[str, ...]) -> Any:
    """Returns the graph function of `decode_stored`; it is traced once and called in each graph."""

    def decode(encoded: Tensor) -> tuple[Any, Any]:
        with on_cpu():
            pixels, exif = _decode(encoded, channels, kinds)
            return pixels, orientation.of_exif(exif)

    return traced(decode, tf.TensorSpec([], tf.string))


def _decode(encoded: Tensor, channels: int, kinds: Sequence[str]) -> tuple[Any, Any]:
    """Returns the pixels and the EXIF block, a scalar string."""
    decoders: dict[str, Callable[[], tuple[Any, Any]]] = {
        "JPEG": lambda: (_jpeg(encoded, channels), orientation.exif_of_jpeg(encoded)),
        "PNG": lambda: _png(encoded, channels),
        "GIF": lambda: (_in_channels(gif.decode(encoded), channels), ""),
        "BMP": lambda: (_in_channels(_on_white(bmp.decode(encoded)), channels), ""),
        "WebP": lambda: (_webp(encoded, channels), orientation.exif_of_webp(encoded)),
    }
    if len(kinds) == 1:
        return decoders[kinds[0]]()
    matches = [tf.equal(piece(encoded, KINDS[kind][0], len(KINDS[kind][1])), KINDS[kind][1]) for kind in kinds]
    pixels, exif = tf.switch_case(
        tf.argmax(tf.cast([*matches, True], tf.int32), output_type=tf.int32),  # the first kind that matches
        [*(decoders[kind] for kind in kinds), lambda: (_unknown_kind(encoded, channels), "")],
    )
    return pixels, exif


def _decode_any(encoded: Tensor, channels: int) -> Any:
    pixels = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
    pixels.set_shape([None, None, channels or None])
    return tf.cast(pixels, tf.float32)


def _jpeg(encoded: Tensor, channels: int) -> Any:
    if channels != 1:
        return _decode_any(encoded, channels)
    # libjpeg does not convert CMYK to grey.
    is_cmyk = tf.equal(tf.image.extract_jpeg_shape(encoded)[2], 4)
    return tf.cond(is_cmyk, lambda: _in_channels(_decode_any(encoded, 3), 1), lambda: _decode_any(encoded, 1))


def _png(encoded: Tensor, channels: int) -> tuple[Any, Any]:
    depth, color = tf.unstack(numbers(encoded, 24, 2))
    exif, has_clear_color = orientation.exif_of_png(encoded)
    transparent = has_clear_color | orientation.is_one_of(color, _WITH_ALPHA)

    def opaque() -> Any:
        return tf.cond(
            tf.equal(depth, 16), lambda: _decode_16_bits(encoded, channels), lambda: _decode_any(encoded, channels)
        )

    def transparent_on_white() -> Any:
        rgba = tf.cond(tf.equal(depth, 16), lambda: _decode_16_bits(encoded, 4), lambda: _decode_any(encoded, 4))
        return _in_channels(_on_white(rgba), channels)

    return tf.cond(transparent, transparent_on_white, opaque), exif


def _decode_16_bits(encoded: Tensor, channels: int) -> Any:
    return tf.cast(tf.io.decode_png(encoded, channels, tf.uint16), tf.float32) / 257.0


def _webp(encoded: Tensor, channels: int) -> Any:
    pixels = _decode_any(encoded, 0)  # the op only takes the number of channels that the file has
    rgb = tf.cond(tf.equal(tf.shape(pixels)[2], 4), lambda: _on_white(pixels), lambda: pixels[..., :3])
    return _in_channels(rgb, channels)


def _on_white(rgba: Any) -> Any:
    """Composites RGB and alpha, float32 [height, width, 4] in [0, 255], on white."""
    return 255.0 + (rgba[..., :3] - 255.0) * (rgba[..., 3:] / 255.0)


def _in_channels(rgb: Any, channels: int) -> Any:
    if channels == 1:
        return tf.reduce_sum(rgb * tf.constant(_GREY_WEIGHTS), -1, keepdims=True)
    return rgb


def _unknown_kind(encoded: Tensor, channels: int) -> Any:
    message = "not the beginning of a JPEG, PNG, GIF, BMP or WebP:"
    with tf.control_dependencies([tf.debugging.Assert(False, [message, piece(encoded, 0, 12)])]):
        return tf.zeros([1, 1, channels])
