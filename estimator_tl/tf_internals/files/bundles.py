"""Checks from its index alone that the files of a checkpoint are whole; this reads no value.

TensorFlow's C++ code in tensor_bundle.cc and table.cc writes the index, a table of (key, entry) pairs. An entry holds
the shard, the offset and the size in bytes of one value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from estimator_tl.compat.versions import load_tensorflow

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_MAX_SHARDS = 100_000  # the number in a shard's file name has five digits
_TRAILER_BYTES = 5  # the type of compression, and a checksum


class _CompressedError(Exception):
    """A block is compressed; TensorFlow itself never compresses an index."""


def damage(prefix: str) -> str:
    """Returns what is wrong with the files of a checkpoint; an empty string if they are whole.

    Args:
      prefix: path of the checkpoint without ``.index``.
    """
    files = load_tensorflow().io.gfile
    index = f"{prefix}.index"
    if not files.exists(index):
        return "its .index file is missing"
    with files.GFile(index, "rb") as stream:
        table = stream.read()
    try:
        sizes = _shard_sizes(table)
    except _CompressedError:
        return ""
    except (IndexError, ValueError, struct.error):
        return "its .index file is damaged"
    for shard, size in enumerate(sizes):
        name = f"data-{shard:05d}-of-{len(sizes):05d}"
        path = f"{prefix}.{name}"
        if not files.exists(path):
            return f"its .{name} file is missing"
        length = files.stat(path).length
        if length < size:
            return f"its .{name} file has {length} bytes, its index lists {size}"
    return ""


def _shard_sizes(table: bytes) -> list[int]:
    """Returns the minimum size of each shard in bytes."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import tensor_bundle_pb2

    sizes: list[int] = []
    try:
        for key, value in _entries(table):
            if not key:
                shards = tensor_bundle_pb2.BundleHeaderProto.FromString(value).num_shards
                if not 0 < shards < _MAX_SHARDS:
                    raise ValueError(f"{shards} shards are listed")
                sizes = [0] * shards
                continue
            entry = tensor_bundle_pb2.BundleEntryProto.FromString(value)
            sizes[entry.shard_id] = max(sizes[entry.shard_id], entry.offset + entry.size)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    if not sizes:
        raise ValueError("the header is missing")
    return sizes


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = table[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("the footer is missing")
    position = 0
    _, position = _varint(footer, position)
    _, position = _varint(footer, position)
    for _, handle in _block(table, footer[position:]):
        yield from _block(table, handle)


def _block(table: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    start, position = _varint(handle, 0)
    size, _ = _varint(handle, position)
    if start + size + _TRAILER_BYTES > len(table):
        raise ValueError("a block is cut off")
    if table[start + size]:
        raise _CompressedError
    block = table[start : start + size]
    restarts = struct.unpack("<I", block[-4:])[0]
    position, end, key = 0, size - 4 * (restarts + 1), b""
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _varint(data: Any, position: int) -> tuple[int, int]:
    """Returns the number at a position, encoded with seven bits a byte, and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
