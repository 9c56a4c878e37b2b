"""The files below a folder: images, bad images, and files that are left out, by kind."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.inputs.images.formats import decodes_webp, judge

_SYSTEM_NAMES = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "__macosx",
        "__pycache__",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)


@dataclasses.dataclass(frozen=True)
class SortedFiles:
    """Files, sorted by how they are treated.

    Attributes:
      images: files that begin with the signature of an image.
      bad: files that have the suffix of an image but cannot be read as one; why, in words that follow the name.
      left_out: how many files of each kind are left out.
      kinds: the kinds of the images, e.g. ``JPEG``.
    """

    images: tuple[str, ...]
    bad: Mapping[str, str] = dataclasses.field(default_factory=dict)
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    kinds: frozenset[str] = frozenset()


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder is hidden, or belongs to the operating system."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def files_below(folder: str) -> list[str]:
    """Returns all files below a folder that are not hidden, sorted, relative to it and with ``/`` in between.

    Raises:
      UserError: a folder cannot be read.
    """
    return sorted(_walk(folder, "", frozenset()))


def _walk(folder: str, prefix: str, above: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that holds it
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read ({error.strerror}); check its permissions.") from error
    for entry in entries:
        if is_hidden(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {real})
        elif entry.is_file() or entry.is_symlink():
            yield f"{prefix}{entry.name}"


def sort_out(root: str, names: Iterable[str]) -> SortedFiles:
    """Sorts files by their first bytes.

    Args:
      root: the folder that the names are relative to.
      names: names of the files.
    """
    images, bad, left_out, kinds = [], {}, collections.Counter[str](), set()
    prefix = os.path.join(root, "")
    for name in names:
        verdict = judge(prefix + name)
        if verdict.left_out_as:
            left_out[verdict.left_out_as] += 1
        elif verdict.kind:
            images.append(name)
            kinds.add(verdict.kind)
        else:
            bad[name] = str(verdict.why_bad)
    return SortedFiles(tuple(images), bad, left_out, frozenset(kinds))


def kinds_of(lists: Iterable[SortedFiles]) -> tuple[str, ...]:
    """Returns the kinds of images in several lists, sorted."""
    return tuple(sorted(frozenset[str]().union(*(files.kinds for files in lists))))


def counted(left_out: collections.Counter[str]) -> str:
    """Returns in words how many files of each kind are left out, e.g. ``3 files .tif, 1 file .txt``."""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{count} file{'s' * (count != 1)} {kind}" for kind, count in kinds)
    if any("webp" in kind.lower() for kind in left_out) and not decodes_webp():
        return f"{text} (TensorFlow {tf.__version__} does not decode WebP)"
    return text
