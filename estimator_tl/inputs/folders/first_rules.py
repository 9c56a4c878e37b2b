"""How the first generation of rules lists images: by a few suffixes, without nested folders in a class."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

from estimator_tl.inputs.folders.listing import SortedFiles

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")


def is_hidden(name: str) -> bool:
    """Returns whether a folder is hidden, and so not a class."""
    return name.startswith((".", "__"))


def files_of(root: str, folders: Iterable[str]) -> SortedFiles:
    """Returns the images of a class, and as `bad` the files that have the suffix of an image but not its signature."""
    names = sorted(
        f"{folder}/{entry.name}"
        for folder in folders
        for entry in os.scandir(os.path.join(root, folder))
        if entry.is_file() and _is_named_as_image(entry.name) and not entry.name.startswith(".")
    )
    images = [name for name in names if _begins_as_image(os.path.join(root, name))]
    bad = sorted(set(names).difference(images))
    return SortedFiles(tuple(images), dict.fromkeys(bad, "is not a readable JPEG, PNG, BMP or GIF"))


def files_of_item(item: str) -> list[str]:
    """Returns the files that a path or a glob names, sorted; for a folder, the files with the suffix of an image."""
    if os.path.isfile(item):
        return [item]
    if not os.path.isdir(item):
        return sorted(file for file in glob.glob(item, recursive=True) if os.path.isfile(file))
    names = [
        os.path.join(folder, name) for folder, _, files in os.walk(item) for name in files if _is_named_as_image(name)
    ]
    return sorted(names)


def _is_named_as_image(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


def _begins_as_image(path: str) -> bool:
    with open(path, "rb") as stream:
        return stream.read(8).startswith(_SIGNATURES)
