"""Splits by hash of the file name: adding files never moves the old ones to another part."""

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
      name: ``class/file.jpg``; the class is part of it, so that files of equal
        name in different classes do not all land in one part.
      validation: share of the validation part.
      test: share of the test part.
    """
    place = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"


def check_fractions(validation: float, test: float) -> None:
    """Checks the shares of a split.

    Raises:
      UserError: they are not shares, or leave nothing to train on.
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):  # NaN is refused as well
        raise UserError(
            f"validation_fraction {validation:g} and test_fraction {test:g} must be at least 0 and sum to below 1."
        )


def check_no_splits(root: str, names: Sequence[str]) -> None:
    """Checks that the folders in a folder of images are its classes.

    Args:
      root: the folder.
      names: of the folders in it.

    Raises:
      UserError: they are all named as parts of a data set, such as train and val, and one of them holds folders.
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
