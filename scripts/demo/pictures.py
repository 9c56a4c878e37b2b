"""Handwritten digits as picture folders, and the few labelled pictures of one seed."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

if TYPE_CHECKING:  # it imports TensorFlow, which the demo first does quietly
    from estimator_tl.inputs import ImageFolder

SIZE = 8
_LEVELS = 16  # a pixel of the data set counts the dark dots in a block of 4 x 4


def write_folders(root: Path, parts: dict[str, Sequence[int]]) -> int:
    """Writes the digits of scikit-learn as ``root/PART/DIGIT/NUMBER.png``.

    Args:
      root: where to write.
      parts: the digits of each part.

    Returns:
      How many pictures were written.
    """
    data = load_digits()
    count = 0
    for part, digits in parts.items():
        for digit in digits:
            folder = root / part / str(digit)
            folder.mkdir(parents=True)
            for number in np.flatnonzero(data.target == digit):
                pixels = np.round(data.images[number] * (255 / _LEVELS)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:04}.png")
                count += 1
    return count


def read(paths: Sequence[str]) -> np.ndarray:
    """Returns pictures as float32 [number, height, width, 1] in [0, 1]."""
    return np.stack([np.asarray(Image.open(path), np.float32)[..., np.newaxis] / 255 for path in paths])


def few_and_rest(folder: ImageFolder, per_class: int, seed: int) -> tuple[ImageFolder, ImageFolder]:
    """Returns the folder with a few pictures of each class, chosen by the seed, and with all the others."""
    few: list[tuple[str, int]] = []
    for number in range(len(folder.labels)):
        of_class = [file for file in folder.files if file[1] == number]
        few += random.Random(seed).sample(of_class, per_class)
    rest = tuple(file for file in folder.files if file not in set(few))
    return dataclasses.replace(folder, files=tuple(few)), dataclasses.replace(folder, files=rest)
