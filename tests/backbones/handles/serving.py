"""Modules as archives, and what serves them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

URL = "https://models.test/tiny/1"
KAGGLE = "https://www.kaggle.com/models/someone/tiny/tensorFlow2/small/1"


def unreachable(host):
    raise OSError(f"no network to {host}")


def pack(folder, path, root="."):
    """Makes an archive of a module, its kind by its name."""
    files = [(file, f"{root}/{file.relative_to(folder)}") for file in sorted(Path(folder).rglob("*"))]
    if str(path).endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for file, name in files:
                archive.write(file, name)
    else:
        with tarfile.open(path, "w:gz" if str(path).endswith("gz") else "w") as archive:
            for file, name in files:
                archive.add(file, name, recursive=False)
    return path


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def modules(cache):
    """The folders in the cache, half ones included."""
    return sorted(p.name for p in cache.iterdir() if p.is_dir())


class Response(io.BytesIO):
    """What a server answers."""

    def __init__(self, content, length=None):
        super().__init__(content)
        self.headers = {} if length is None else {"Content-Length": str(length)}
