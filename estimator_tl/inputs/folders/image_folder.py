"""Image folders: every image below ``root/class/``."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import ClassVar

from estimator_tl.errors import UserError, and_more, check_known, nearest
from estimator_tl.inputs.folders import first_rules
from estimator_tl.inputs.folders.listing import SortedFiles, counted, files_below, is_hidden, kinds_of, sort_out
from estimator_tl.inputs.images.decoding import KINDS
from estimator_tl.inputs.images.feature import undecodable
from estimator_tl.inputs.images.formats import SUFFIXES, decoded_kinds
from estimator_tl.inputs.pipeline import Examples
from estimator_tl.inputs.source import DataSource, registry
from estimator_tl.inputs.splits import check_fractions, check_no_splits
from estimator_tl.specs import BAD_EXAMPLE_POLICIES, DATA_RULES


@dataclasses.dataclass(frozen=True)
class ImageFolder(DataSource):
    """A labelled folder of images, listed and checked; see `DataSource` for the other attributes.

    Attributes:
      files: (``class/file`` or ``class/folder/file``, class number) for each image, sorted.
      rules: the generation of rules by which images are listed and decoded, see `specs.DATA_RULES`.
      kinds: the kinds of images in the folder, e.g. ``JPEG``.
    """

    what: ClassVar[str] = "images"
    root: str
    labels: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    validation: float = 0.0
    test: float = 0.0
    skipped: tuple[str, ...] = ()
    rules: int = DATA_RULES
    kinds: tuple[str, ...] = tuple(KINDS)

    def examples(self, split: str = "all") -> Examples:
        return dataclasses.replace(super().examples(split), kinds=self.kinds)

    def rows(self) -> list[tuple[str, str, int]]:
        # macOS may write a name in other code points than Linux: the split is the same.
        split_name = str if self.rules == 1 else compose
        prefix = os.path.join(self.root, "")
        return [(split_name(name), prefix + name, label) for name, label in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def digest(self) -> str:
        """Returns ``sha256:...`` of the listing: names and sizes of all files."""
        listing, prefix = hashlib.sha256(), os.path.join(self.root, "")
        for name, _ in self.files:
            listing.update(f"{name}\0{os.path.getsize(prefix + name)}\n".encode("utf-8", "surrogateescape"))
        return f"sha256:{listing.hexdigest()}"

    def unreadable(self) -> list[str]:
        """Decodes every image and returns the names of the images that cannot be decoded."""
        return undecodable(self.root, [name for name, _ in self.files], self.rules, self.kinds)


def compose(name: str) -> str:
    """Returns a name in composed code points (NFC), the form in which names are compared."""
    return unicodedata.normalize("NFC", name)


@registry.register()
def image_folder(
    root: str,
    validation: float = 0.0,
    test: float = 0.0,
    labels: Sequence[str] | None = None,
    on_bad_example: str = "error",
    rules: int = DATA_RULES,
) -> ImageFolder:
    """Lists a folder of images with one subfolder a class, which may hold further folders.

    The first bytes of a file decide what it is, not its suffix. Images of kinds that TensorFlow does not decode, and
    other files without the suffix of an image, are left out; one line on standard error counts them by kind. Hidden
    files and files of the operating system are ignored.

    Args:
      root: the folder.
      validation: share of the images in the validation part, chosen by hash of their names.
      test: the same for the test part.
      labels: the classes in order, where they are already known (evaluating a
        trained run); the names of the subfolders, sorted, by default. Names are compared in composed code points.
      on_bad_example: ``error`` reads the first bytes of each file now and refuses a file that has the suffix of an
        image but is not an image; ``skip`` decodes every file now and leaves out what cannot be decoded.
      rules: the generation of rules by which files are listed and decoded, see `specs.DATA_RULES`.

    Raises:
      UserError: no such folder, fewer than two classes, an empty class, an unreadable image, a folder of splits.

    Example:
      >>> data = etl.inputs.image_folder("flowers", validation=0.2)
      >>> data.labels
      ('roses', 'tulips')
      >>> input_fn = data.input_fn(backbone.image_spec, batch_size=4, split="validation")
      >>> features, labels = input_fn().element_spec
      >>> features["image"].shape.as_list()
      [None, 8, 8, 3]
    """
    check_fractions(validation, test)
    check_known("on_bad_example", on_bad_example, BAD_EXAMPLE_POLICIES)
    root = os.path.abspath(os.path.expanduser(root))
    folders = _class_folders(root, rules)
    classes = _check_classes(root, folders, labels, rules)
    numbers = {compose(name): number for number, name in reversed(list(enumerate(classes)))}
    class_files = {name: _files_of(root, class_folders, rules) for name, class_folders in folders.items()}
    if rules > 1:
        _report_images_without_class(root)
    _report_left_out(root, class_files)
    bad = _bad_files(root, class_files, on_bad_example, rules)
    files = []
    for name, of_class in class_files.items():
        good = [image for image in of_class.images if image not in bad]
        if not good:
            raise _empty_class_error(root, name, of_class)
        files += [(image, numbers[compose(name)]) for image in good]
    kinds = kinds_of(class_files.values())
    return ImageFolder(root, classes, tuple(files), validation, test, tuple(sorted(bad)), rules, kinds)


def _class_folders(root: str, rules: int) -> dict[str, list[str]]:
    """Returns the class names, sorted, each with the folders of that name (in composed code points)."""
    if not os.path.isdir(root):
        raise UserError(f"data folder {root} does not exist; check the path.")
    hidden = first_rules.is_hidden if rules == 1 else is_hidden
    try:
        names = sorted(e.name for e in os.scandir(root) if e.is_dir() and not hidden(e.name))
    except OSError as error:
        raise UserError(f"data folder {root} cannot be read ({error.strerror}); check its permissions.") from error
    folders = collections.defaultdict(list)
    for name in names:
        class_name = name if rules == 1 else compose(name)
        folders[class_name].append(name)
    return dict(sorted(folders.items()))


def _check_classes(
    root: str, folders: Mapping[str, Sequence[str]], labels: Sequence[str] | None, rules: int
) -> tuple[str, ...]:
    """Returns the classes in order."""
    if rules > 1:
        check_no_splits(root, list(folders))
    if labels is None:
        if len(folders) < 2:
            holds = "no class folders"
            if folders:
                holds = f"one class ({next(iter(folders))})"
            raise UserError(f"{root} holds {holds}; a classifier needs at least two: {root}/CLASS/IMAGE.jpg.")
        return tuple(folders)
    run_classes = {compose(label) for label in labels}
    for name in folders:
        if compose(name) not in run_classes:
            raise UserError(f"{root} holds the class {name!r}, which the run does not know; {nearest(name, labels)}")
    return tuple(labels)


def _files_of(root: str, folders: Sequence[str], rules: int) -> SortedFiles:
    if rules == 1:
        return first_rules.files_of(root, folders)
    names = [f"{folder}/{name}" for folder in folders for name in files_below(os.path.join(root, folder))]
    return sort_out(root, sorted(names))


def _report_images_without_class(root: str) -> None:
    """Prints how many images lie directly in the folder, where they have no class."""
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_file() and not is_hidden(entry.name))
    outside = sort_out(root, names).images
    if outside:
        kinds = collections.Counter(os.path.splitext(name)[1].lower() or "without suffix" for name in outside)
        print(f"left out: {counted(kinds)} directly in {root}, outside of any class folder", file=sys.stderr)


def _report_left_out(root: str, class_files: Mapping[str, SortedFiles]) -> None:
    kinds = collections.Counter[str]()
    for files in class_files.values():
        kinds.update(files.left_out)
    if kinds:
        count = sum(1 for files in class_files.values() if files.left_out)
        folders = f"{count} class folder{'s' * (count != 1)}"
        print(f"left out: {counted(kinds)} in {folders} of {root}", file=sys.stderr)


def _bad_files(root: str, class_files: Mapping[str, SortedFiles], policy: str, rules: int) -> set[str]:
    """Returns the files that should be images but cannot be read as images.

    Raises:
      UserError: there are such files, and the policy is ``error``.
    """
    bad = {file: reason for files in class_files.values() for file, reason in files.bad.items()}
    if policy == "skip":
        images = [image for files in class_files.values() for image in files.images]
        return {*bad, *undecodable(root, images, rules, kinds_of(class_files.values()))}
    if bad:
        raise bad_example_error(root, list(bad), next(iter(bad.values())))
    return set()


def _empty_class_error(root: str, name: str, files: SortedFiles) -> UserError:
    if files.images or files.bad:
        return UserError(f"class {name!r} in {root} has no readable image; replace its files or remove it.")
    if files.left_out:
        return UserError(
            f"class {name!r} in {root} holds no {decoded_kinds()} ({counted(files.left_out)}); convert its files or "
            "remove it."
        )
    return UserError(f"class {name!r} in {root} is empty; add images ({', '.join(SUFFIXES)}) or remove it.")


def bad_example_error(root: str, bad: Sequence[str], reason: str | None = None) -> UserError:
    """Returns the error for files that should be images but cannot be read as images.

    Args:
      root: the folder that the names are relative to.
      bad: names of the files, at least one.
      reason: what is wrong with the first, in words that follow its name; by default, that it is not readable.
    """
    more = and_more(len(bad) - 1)
    reason = reason or f"is not a readable {decoded_kinds()}"
    return UserError(f"{os.path.join(root, bad[0])} {reason}{more}; replace it, or use --on_bad_example=skip.")
