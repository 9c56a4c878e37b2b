"""Image folders: ``root/class/*.{jpg,jpeg,png,bmp,gif}``."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import ClassVar

from estimator_tl.errors import UserError, check_known, nearest
from estimator_tl.inputs.images import SUFFIXES, is_decodable, looks_like_image
from estimator_tl.inputs.source import BAD_EXAMPLE_POLICIES, DataSource, registry
from estimator_tl.inputs.splits import check_fractions
from estimator_tl.specs import DATA_RULES


@dataclasses.dataclass(frozen=True)
class ImageFolder(DataSource):
    """A labelled folder of pictures, listed and checked; see `DataSource` for the attributes.

    Attributes:
      files: (``class/file``, class number) for each picture, sorted.
    """

    what: ClassVar[str] = "pictures"
    root: str
    labels: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    validation: float = 0.0
    test: float = 0.0
    skipped: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, str, int]]:
        return [(name, os.path.join(self.root, name), label) for name, label in self.files]

    def digest(self) -> str:
        """Returns ``sha256:...`` of the listing: names and sizes of all files."""
        listing = hashlib.sha256()
        for name, _ in self.files:
            listing.update(f"{name}\0{os.path.getsize(os.path.join(self.root, name))}\n".encode())
        return f"sha256:{listing.hexdigest()}"

    def unreadable(self) -> list[str]:
        """Decodes every picture and returns the names of those that cannot be."""
        return _undecodable(self.root, [name for name, _ in self.files], channels=3)


@registry.register()
def image_folder(
    root: str,
    validation: float = 0.0,
    test: float = 0.0,
    labels: Sequence[str] | None = None,
    on_bad_example: str = "error",
    rules: int = DATA_RULES,
) -> ImageFolder:
    """Lists a folder of pictures with one subfolder a class.

    Args:
      root: the folder.
      validation: share of the pictures, chosen by hash of their names, in the validation part.
      test: the same for the test part.
      labels: the classes in order, where they are already known (evaluating a
        trained run); the names of the subfolders, sorted, by default.
      on_bad_example: ``error`` looks at the first bytes of each file now and
        names a file that is no picture; ``skip`` decodes every file now and
        leaves the unreadable ones out.
      rules: the generation of rules by which files are listed, see `specs.DATA_RULES`.

    Raises:
      UserError: no such folder, fewer than two classes, an empty class, an unreadable picture.
    """
    check_fractions(validation, test)
    check_known("on_bad_example", on_bad_example, BAD_EXAMPLE_POLICIES)
    root = os.path.abspath(os.path.expanduser(root))
    classes = _classes(root)
    if labels is None:
        if len(classes) < 2:
            found = f"one class ({classes[0]})" if classes else "no class folders"
            raise UserError(f"{root} holds {found}; a classifier needs at least two: {root}/CLASS/PICTURE.jpg.")
        labels = classes
    for name in classes:
        if name not in labels:
            raise UserError(f"{root} holds the class {name!r}, which the run does not know; {nearest(name, labels)}")
    files = []
    for name in classes:
        pictures = _pictures(root, name)
        if not pictures:
            raise UserError(f"class {name!r} in {root} is empty; add pictures ({', '.join(SUFFIXES)}) or remove it.")
        files += [(picture, list(labels).index(name)) for picture in pictures]
    skipped = _bad_files(root, [name for name, _ in files], on_bad_example)
    kept = [file for file in files if file[0] not in set(skipped)]
    for name in classes:
        if all(label != list(labels).index(name) for _, label in kept):
            raise UserError(f"class {name!r} in {root} has no readable picture; replace its files or remove it.")
    return ImageFolder(root, tuple(labels), tuple(kept), validation, test, tuple(skipped))


def _classes(root: str) -> list[str]:
    if not os.path.isdir(root):
        raise UserError(f"data folder {root} does not exist; check the path.")
    try:
        return sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith((".", "__")))
    except OSError as error:
        raise UserError(f"data folder {root} cannot be read ({error.strerror}); check its permissions.") from error


def _pictures(root: str, name: str) -> list[str]:
    entries = os.scandir(os.path.join(root, name))
    return sorted(
        f"{name}/{entry.name}"
        for entry in entries
        if entry.is_file() and entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
    )


def _bad_files(root: str, names: Sequence[str], policy: str) -> list[str]:
    if policy == "skip":
        return _undecodable(root, names, channels=3)
    bad = [name for name in names if not looks_like_image(os.path.join(root, name))]
    if bad:
        raise bad_example_error(root, bad)
    return []


def bad_example_error(root: str, bad: Sequence[str]) -> UserError:
    """Returns the error that names pictures which are none."""
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    return UserError(
        f"{os.path.join(root, bad[0])} is not a readable JPEG, PNG, BMP or GIF{more}; "
        "replace it, or use --on_bad_example=skip."
    )


def _undecodable(root: str, names: Sequence[str], channels: int) -> list[str]:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        readable = pool.map(lambda name: is_decodable(os.path.join(root, name), channels), names)
        return [name for name, good in zip(names, readable) if not good]
