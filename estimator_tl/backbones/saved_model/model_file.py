"""Checks that a SavedModel's file is complete, by the lengths of its fields; large files take no longer."""

from __future__ import annotations

import os
from typing import IO

from estimator_tl.backbones.fetching import module_cache
from estimator_tl.errors import SOURCE, UserError

_GRAPH = 2  # number of the field that holds the graphs
_NUMBER, _BYTES = 0, 2  # how protocol buffers write fields: https://protobuf.dev/programming-guides/encoding


def check_model_file(folder: str) -> None:
    """Checks that the saved_model.pb of a folder holds a complete model; does not check a saved_model.pbtxt.

    Args:
      folder: of a SavedModel or a TF1 Hub module.

    Raises:
      UserError: the file is empty, cut off, or not a model.
    """
    path = os.path.join(folder, "saved_model.pb")
    if not os.path.exists(path):
        return
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        fault = _fault(stream, size) if size else "is empty"
    if fault:
        remedy = "get it again"
        if module_cache.holds(folder):
            remedy = f"delete {module_cache.entry(folder)} in Hub's cache to fetch it again"
        raise UserError(f"{SOURCE} is not a loadable SavedModel: {path} {fault}; {remedy}.")


def _fault(stream: IO[bytes], size: int) -> str:
    """Returns what is wrong with a file of this size; empty for a complete file."""
    graphs = 0
    while stream.tell() < size:
        tag, value = _varint(stream), _varint(stream)
        if tag is None or value is None or tag & 7 not in (_NUMBER, _BYTES):
            return "is damaged"
        if tag & 7 == _BYTES:
            if stream.tell() + value > size:
                return "is cut off"
            graphs += tag >> 3 == _GRAPH
            stream.seek(value, os.SEEK_CUR)
    return "" if graphs else "holds no model"


def _varint(stream: IO[bytes]) -> int | None:
    """Reads a number as protocol buffers write it; None at the end of the file."""
    value = shift = 0
    while True:
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value
