"""Splits by hash of the file name: adding files never moves an older file to another part."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence

from estimator_tl.errors import UserError

_SPLIT = re.compile(
    r"(?P<part>train(ing)?|val(id|idation)?|dev|eval(uation)?|test(ing)?|holdout)"
    r"([ _-]?(set|data|images|split))?",
    re.IGNORECASE,
)
PARTS = ("train", "validation", "test", "all")


def part_of(name: str, validation: float, test: float) -> str:
    """Returns the part that a file belongs to, from its name alone.

    Args:
      name: ``class/file.jpg``; it includes the class, so that files with the same
        name in different classes do not all go to the same part.
      validation: share of the validation part.
      test: share of the test part.
    """
    fraction = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
    if fraction < test:
        return "test"
    if fraction < test + validation:
        return "validation"
    return "train"


def check_fractions(validation: float, test: float) -> None:
    """Checks the shares of a split.

    Raises:
      UserError: a share is negative or NaN, or the shares leave nothing to train on.
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):  # NaN is refused as well
        raise UserError(
            f"validation_fraction {validation:g} and test_fraction {test:g} must be at least 0 and sum to below 1."
        )


def check_no_splits(root: str, names: Sequence[str]) -> None:
    """Checks that the subfolders of an image folder are classes, not splits.

    Args:
      root: the image folder.
      names: names of its subfolders.

    Raises:
      UserError: all subfolders are named like splits, such as train and val, and one of them holds folders.
    """
    parts = [name for name in names if _SPLIT.fullmatch(name)]
    if not parts or len(parts) < len(names) or not any(_holds_folders(os.path.join(root, name)) for name in parts):
        return
    train = [name for name in parts if name.lower().startswith("train")]
    others = sorted(set(parts).difference(train), key=lambda name: name.lower().startswith(("test", "holdout")))
    flags = [f"--train_data={root}/{name}" for name in train[:1]] + [
        f"--eval_data={root}/{name}" for name in others[:1]
    ]
    raise UserError(
        f"{root} looks like a folder with splits inside ({', '.join(parts)}), not classes; use {' '.join(flags)}."
    )


def _holds_folders(folder: str) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)
