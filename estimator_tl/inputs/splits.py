"""Splits by hash of the file name: adding files never moves the old ones to another part."""

from __future__ import annotations

import hashlib

from estimator_tl.errors import UserError

PARTS = ("train", "validation", "test", "all")


def part_of(name: str, validation: float, test: float) -> str:
    """Returns the part that a file belongs to, from its name alone.

    Args:
      name: ``class/file.jpg``; the class is part of it, so that files of equal
        name in different classes do not all land in one part.
      validation: share of the validation part.
      test: share of the test part.
    """
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
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
