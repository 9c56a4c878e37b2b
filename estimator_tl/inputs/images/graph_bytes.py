"""Reads the bytes of an encoded file in the graph."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat import tf
from estimator_tl.types import Tensor


def piece(encoded: Tensor, position: Any, size: Any) -> Any:
    """Returns `size` bytes from a position on; fewer where the file ends earlier.

    Args:
      encoded: scalar string.
      position: int64 scalar, at least 0.
      size: int64 scalar, at least 0.

    Returns:
      A scalar string.
    """
    start = tf.minimum(tf.cast(position, tf.int64), length(encoded))
    return tf.strings.substr(encoded, start, tf.cast(size, tf.int64))


def length(encoded: Tensor) -> Any:
    """Returns the number of bytes in a scalar string, int64."""
    return tf.cast(tf.strings.length(encoded), tf.int64)


def numbers(encoded: Tensor, position: Any, count: int, kind: str = "uint8", little_endian: bool = True) -> Any:
    """Reads numbers at a position of a file; missing ones are zero where the file ends earlier.

    Args:
      encoded: scalar string.
      position: int64 scalar, the byte at which the first number begins; at least 0.
      count: how many numbers to read.
      kind: uint8, uint16 or int32.
      little_endian: the byte order of the numbers.

    Returns:
      int64 [count].
    """
    dtype = tf.as_dtype(kind)
    size = count * dtype.size
    values = tf.io.decode_raw(piece(encoded, position, size), dtype, little_endian, fixed_length=size)
    return tf.cast(values, tf.int64)


def int64(value: int) -> Any:
    """Returns an int64 scalar."""
    return tf.constant(value, tf.int64)
