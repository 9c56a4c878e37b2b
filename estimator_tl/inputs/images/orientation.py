"""Reads and applies the EXIF orientation of an image in the graph, as TensorFlow has no op for it.

The EXIF block is in:

- JPEG: the first EXIF segment before the image data.
- PNG: the chunk ``eXIf``, if it is before the image data.
- WebP: the chunk ``EXIF``.

Both byte orders are read. A malformed block counts as orientation 1, upright. XMP and the orientation of a thumbnail
(which is in another directory of the block) are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.inputs.images.graph_bytes import int64, length, numbers, piece
from estimator_tl.types import Tensor

UPRIGHT = 1
_EXIF = b"Exif\0\0"
_TAG = 0x0112
_SHORT, _LONG = 3, 4
_MOST_PARTS = 1000  # an ICC profile has up to 255
_SEARCHED = 1 << 18


def exif_of_jpeg(encoded: Tensor) -> Any:
    """Returns the EXIF block of a JPEG, a scalar string; empty for a file without EXIF.

    Most files have no EXIF. A search for its signature takes less time than a walk over the segments, so only files
    that hold the signature, and large files, are walked.

    Args:
      encoded: scalar string.
    """
    head = piece(encoded, 0, _SEARCHED)
    without_signature = tf.strings.regex_replace(head, r"Exif\x00\x00", "", replace_global=False)
    may_have_exif = (length(without_signature) < length(head)) | (length(encoded) > _SEARCHED)
    return tf.cond(may_have_exif, lambda: _exif_of_segments(encoded), lambda: "")


def _exif_of_segments(encoded: Tensor) -> Any:
    def words_at(position: Any) -> Any:
        return numbers(encoded, position, 5, "uint16", little_endian=False)

    def has_next(position: Any, words: Tensor) -> Any:
        del position
        ends = (words[0] < 0xFF01) | is_one_of(words[0], [0xFFD9, 0xFFDA])
        return ~(ends | _is_exif(words))

    def next_part(position: Any, words: Tensor) -> tuple[Any, Any]:
        has_no_size = is_one_of(words[0], [0xFF01, *range(0xFFD0, 0xFFD9)])
        step = tf.where(has_no_size, int64(2), 2 + words[1])
        step = tf.where(tf.equal(words[0], 0xFFFF), int64(1), step)  # 0xFF bytes may fill the space before a marker
        return position + step, words_at(position + step)

    start = int64(2)
    position, words = tf.while_loop(has_next, next_part, (start, words_at(start)), maximum_iterations=_MOST_PARTS)
    size = tf.where(_is_exif(words), tf.maximum(words[1] - 2, 0), int64(0))
    return piece(encoded, position + 4, size)


def _is_exif(words: Tensor) -> Any:
    """Returns whether a segment begins as an EXIF segment does; its second word, the size, may be any."""
    return tf.reduce_all(tf.equal(tf.gather(words, [0, 2, 3, 4]), [0xFFE1, 0x4578, 0x6966, 0]))


def exif_of_png(encoded: Tensor) -> tuple[Any, Any]:
    """Returns the EXIF block of a PNG, a scalar string (empty for a file without EXIF), and whether it has tRNS.

    Args:
      encoded: scalar string; only the part before the image data is read.
    """
    exif, transparent = _name("eXIf", "big"), _name("tRNS", "big")
    ends = [0, _name("IDAT", "big"), _name("IEND", "big")]

    def words_at(position: Any) -> Any:
        return numbers(encoded, position, 2, "int32", little_endian=False)

    def has_next(position: Any, words: Tensor, block: Any, clear: Any) -> Any:
        del position, block, clear
        return ~is_one_of(words[1], ends) & (words[0] >= 0)

    def next_part(position: Any, words: Tensor, block: Any, clear: Any) -> tuple[Any, Any, Any, Any]:
        block = tf.where(tf.equal(words[1], exif), tf.stack([position + 8, words[0]]), block)
        after = position + 12 + words[0]
        return after, words_at(after), block, clear | tf.equal(words[1], transparent)

    start = int64(33)  # after the signature and the header
    none = tf.zeros([2], tf.int64)
    _, _, block, clear = tf.while_loop(
        has_next, next_part, (start, words_at(start), none, tf.constant(False)), maximum_iterations=_MOST_PARTS
    )
    return piece(encoded, block[0], block[1]), clear


def exif_of_webp(encoded: Tensor) -> Any:
    """Returns the EXIF block of a WebP image, a scalar string; empty for an image without EXIF.

    Args:
      encoded: scalar string.
    """
    ends = [0, _name("EXIF", "little")]

    def words_at(position: Any) -> Any:
        return numbers(encoded, position, 2, "int32")

    def has_next(position: Any, words: Tensor) -> Any:
        del position
        return ~is_one_of(words[0], ends) & (words[1] >= 0)

    def next_part(position: Any, words: Tensor) -> tuple[Any, Any]:
        step = 8 + words[1] + words[1] % 2
        return position + step, words_at(position + step)

    start = int64(12)
    position, words = tf.while_loop(has_next, next_part, (start, words_at(start)), maximum_iterations=_MOST_PARTS)
    size = tf.where(tf.equal(words[0], ends[1]), tf.maximum(words[1], 0), int64(0))
    return piece(encoded, position + 8, size)


def _name(name: str, order: Any) -> int:
    return int.from_bytes(name.encode(), order)


def of_exif(block: Any) -> Any:
    """Returns the orientation in the first directory of an EXIF block, int64 1 to 8.

    Args:
      block: scalar string: a TIFF structure, with or without the prefix of an EXIF segment; empty without EXIF.
    """
    return tf.cond(length(block) > 0, lambda: _of_tiff(block), lambda: int64(UPRIGHT))


def _of_tiff(block: Any) -> Any:
    prefixed = tf.equal(piece(block, 0, len(_EXIF)), _EXIF)
    block = piece(block, tf.where(prefixed, len(_EXIF), 0), length(block))
    signature = piece(block, 0, 4)
    little, big = tf.equal(signature, b"II*\0"), tf.equal(signature, b"MM\0*")
    powers = tf.constant([1, 1 << 8, 1 << 16, 1 << 24], tf.int64)

    def number(digits: Any) -> Any:
        """Converts bytes [..., 2 or 4], in the byte order of the block, to int64 [...]."""
        size = digits.shape[-1]
        return tf.reduce_sum(digits * tf.where(little, powers[:size], powers[:size][::-1]), -1)

    directory = number(numbers(block, 4, 4))
    entries = piece(block, directory + 2, 12 * number(numbers(block, directory, 2)))
    whole = piece(entries, 0, length(entries) // 12 * 12)
    fields = tf.reshape(tf.cast(tf.io.decode_raw(whole, tf.uint8), tf.int64), [-1, 12])
    kind = number(fields[:, 2:4])
    value = tf.where(tf.equal(kind, _SHORT), number(fields[:, 8:10]), number(fields[:, 8:12]))
    readable = tf.equal(number(fields[:, 4:8]), 1) & ((kind >= _SHORT) & (kind <= _LONG)) & (value <= 8) & (value > 0)
    of_tag = tf.boolean_mask(tf.where(readable, value, UPRIGHT), tf.equal(number(fields[:, 0:2]), _TAG))
    last = tf.concat([[int64(UPRIGHT)], of_tag], 0)[-1]  # the last tag counts
    return tf.where(little | big, last, int64(UPRIGHT))


def is_sideways(orientation: Any) -> Any:
    """Returns whether an orientation swaps height and width."""
    return orientation >= 5


def upright(pixels: Tensor, orientation: Any) -> Any:
    """Turns and mirrors an image as its orientation says.

    Args:
      pixels: [height, width, channels], as stored.
      orientation: int64 scalar, 1 to 8.

    Returns:
      The upright image, [height, width, channels]; orientations 5 to 8 swap height and width.
    """

    def turn() -> Any:
        image = tf.transpose(pixels, tf.where(is_sideways(orientation), [1, 0, 2], [0, 1, 2]))
        mirrored = [is_one_of(orientation, [3, 4, 7, 8]), is_one_of(orientation, [2, 3, 6, 7])]
        return tf.reverse(image, tf.boolean_mask([0, 1], tf.stack(mirrored)))

    return tf.cond(tf.equal(orientation, UPRIGHT), lambda: pixels, turn)


def is_one_of(value: Any, values: Sequence[int]) -> Any:
    """Returns whether an int64 scalar is one of the values."""
    return tf.reduce_any(tf.equal(value, tf.constant(values, tf.int64)))
