"""From encoded bytes to the feature ``image``; training, evaluation and serving share it."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat import tf
from estimator_tl.specs import ImageSpec

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")


def decode_image(encoded: Any, spec: ImageSpec) -> Any:
    """Decodes one picture into the form that a source takes.

    Args:
      encoded: scalar string: JPEG, PNG, BMP or GIF (its first frame).
      spec: size, channels and range of the source.

    Returns:
      float32 [height, width, channels]: resized without keeping the aspect ratio,
      then preprocessed. Shrinking averages areas, everything else is bilinear,
      with antialiasing where one side shrinks, so that no pixel is passed over.
    """
    pixels = tf.io.decode_image(encoded, channels=spec.channels, expand_animations=False)
    pixels.set_shape([None, None, spec.channels])
    resized = _resize(tf.cast(pixels, tf.float32), spec.height, spec.width)
    resized.set_shape(spec.shape)
    return spec.preprocess(resized)


def _resize(pixels: Any, height: int, width: int) -> Any:
    """Resizes a picture; the first two ways take less than half the time of the last, which is right for all."""
    size, wanted = tf.shape(pixels)[:2], [height, width]
    return tf.case(
        [
            (tf.reduce_all(size >= wanted), lambda: tf.image.resize(pixels, wanted, tf.image.ResizeMethod.AREA)),
            (tf.reduce_all(size <= wanted), lambda: tf.image.resize(pixels, wanted)),
        ],
        default=lambda: tf.image.resize(pixels, wanted, antialias=True),
    )


def looks_like_image(path: str) -> bool:
    """True where a file begins as a JPEG, PNG, GIF or BMP does; the suffix does not matter."""
    with open(path, "rb") as stream:
        return stream.read(8).startswith(_MAGIC)


def is_decodable(path: str, channels: int) -> bool:
    """True where a file decodes as a picture from its first to its last byte. Eager only."""
    try:
        tf.io.decode_image(tf.io.read_file(path), channels=channels, expand_animations=False)
    except tf.errors.OpError:
        return False
    return True
