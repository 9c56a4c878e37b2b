"""Makes the feature ``image`` from encoded bytes, for training, evaluation and serving alike."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Collection, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.inputs.images.decoding import KINDS, decode_stored
from estimator_tl.inputs.images.orientation import is_sideways, upright
from estimator_tl.specs import ImageSpec
from estimator_tl.types import Tensor

_CHANNELS = (1, 3)


def decode_image(encoded: Tensor, spec: ImageSpec, kinds: Collection[str] = tuple(KINDS)) -> Any:
    """Decodes one image into the form that a backbone takes.

    The image looks as in a viewer: upright, as EXIF says, and on white where it is transparent. An image that is stored
    sideways is first resized to the swapped size and then turned, because it costs more to turn the full image.

    Args:
      encoded: scalar string: JPEG, PNG, BMP, GIF (its first frame) or, where TensorFlow decodes it, WebP.
      spec: size, channels and range that the backbone takes, and the rules by which files are decoded.
      kinds: the kinds of images that may occur, see `decode_stored`.

    Returns:
      float32 [height, width, channels]: resized without keeping the aspect ratio,
      then preprocessed. Where both sides shrink, areas are averaged. All else is bilinear,
      with antialiasing where one side shrinks, so that every pixel counts.
    """
    size = tf.constant([spec.height, spec.width])
    if spec.rules == 1 or spec.channels not in _CHANNELS:
        resized = _resize(_as_stored(encoded, spec.channels), size)
    else:
        pixels, orientation = decode_stored(encoded, spec.channels, kinds)
        size = tf.cond(is_sideways(orientation), lambda: size[::-1], lambda: size)
        resized = upright(_resize(pixels, size), orientation)
    resized.set_shape(spec.shape)
    return spec.preprocess(resized)


def _as_stored(encoded: Tensor, channels: int) -> Any:
    """Returns float32 [height, width, channels] and ignores orientation and transparency, as the first rules do."""
    pixels = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
    pixels.set_shape([None, None, channels])
    return tf.cast(pixels, tf.float32)


def _resize(pixels: Tensor, size: Any) -> Any:
    """Resizes an image. The default case fits every image, but takes over twice the time of the first two."""
    stored = tf.shape(pixels)[:2]
    return tf.case(
        [
            (tf.reduce_all(stored >= size), lambda: tf.image.resize(pixels, size, tf.image.ResizeMethod.AREA)),
            (tf.reduce_all(stored <= size), lambda: tf.image.resize(pixels, size)),
        ],
        default=lambda: tf.image.resize(pixels, size, antialias=True),
    )


def undecodable(root: str, names: Sequence[str], rules: int, kinds: Collection[str] = tuple(KINDS)) -> list[str]:
    """Decodes images completely and returns the names of the images that cannot be decoded.

    Args:
      root: the folder that the names are relative to.
      names: names of the files.
      rules: the generation of rules by which they are decoded, see `specs.DATA_RULES`.
      kinds: the kinds of images that may occur, see `decode_stored`.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        path = tf.compat.v1.placeholder(tf.string, [])
        encoded = tf.io.read_file(path)
        if rules == 1:
            pixels = _as_stored(encoded, 3)
        else:
            pixels, _ = decode_stored(encoded, 3, kinds)

        def is_decodable(name: str) -> bool:
            try:
                session.run(pixels.op, {path: os.path.join(root, name)})
            except tf.errors.OpError:
                return False
            return True

        with concurrent.futures.ThreadPoolExecutor() as pool:
            good = pool.map(is_decodable, names)
            return [name for name, decoded in zip(names, good) if not decoded]
