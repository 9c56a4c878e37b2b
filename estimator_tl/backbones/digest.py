"""Digests of backbones, so that a run can record exactly what it started from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK = 1 << 20


def file_digest(path: str | os.PathLike[str]) -> str:
    """Returns ``sha256:...`` of a file's bytes."""
    return f"sha256:{_sha256(Path(path))}"


def folder_digest(path: str | os.PathLike[str]) -> str:
    """Returns ``sha256:...`` over the relative names and the contents of all files below a folder."""
    root = Path(path)
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return joined_digest({file.relative_to(root).as_posix(): _sha256(file) for file in files})


def values_digest(values: Mapping[str, Any]) -> str:
    """Returns ``sha256:...`` over the names, types, shapes and bytes of arrays, independent of their order."""
    arrays = {name: np.asarray(values[name]) for name in sorted(values)}
    return joined_digest(
        {
            f"{name} {array.dtype.str} {array.shape}": hashlib.sha256(array.tobytes()).hexdigest()
            for name, array in arrays.items()
        }
    )


def joined_digest(parts: Mapping[str, str]) -> str:
    """Returns ``sha256:...`` over names and the digest of each, in the order of the mapping."""
    total = hashlib.sha256()
    for name, digest in parts.items():
        total.update(f"{name}\0{digest}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
