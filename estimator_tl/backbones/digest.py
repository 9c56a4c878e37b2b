"""Digests of sources, so that a run can say exactly what it started from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_CHUNK = 1 << 20


def file_digest(path: str | os.PathLike[str]) -> str:
    """Returns ``sha256:...`` of a file's bytes."""
    return f"sha256:{_sha256(Path(path))}"


def folder_digest(path: str | os.PathLike[str]) -> str:
    """Returns ``sha256:...`` over relative names and contents of all files below a folder."""
    root = Path(path)
    total = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(root).as_posix()}\0{_sha256(file)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
