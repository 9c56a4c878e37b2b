"""What a model takes in; decoding, serving receivers and random test data derive from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Union

from estimator_tl.types import Tensor

#: Graph collection that is empty if a resumed run would read its input from the start.
INPUT_POSITION = "estimator_tl/input_place"

#: The newest generation of the rules by which data files are listed and decoded. A run keeps the one it began with.
#: 1: image orientation, transparency and palettes of BMP files are ignored; class folders are flat;
#:    tables are read as in `inputs/tables/first_rules.py`.
#: 2: orientation is respected, transparency is composited on white; every file of a class folder is used or counted;
#:    rows of tables end at line ends only, and are quoted or separated as the whole file shows.
DATA_RULES = 2


#: The feature that holds example weights.
WEIGHT_KEY = "weight"
#: How an output with height and width becomes a vector.
POOLINGS = ("avg", "max", "flatten", "none")
#: What happens to files and rows that cannot be read.
BAD_EXAMPLE_POLICIES = ("error", "skip")


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """The contract of the feature ``image``: float32 [batch, height, width, channels].

    Attributes:
      height: pixels.
      width: pixels.
      channels: 1 (grey) or 3 (RGB).
      preprocess: maps a float32 tensor with values in [0, 255] to the range that
        the backbone was trained on; keeps the shape.
      range_text: the range or the function in words, for messages.
      range: (low, high) where `preprocess` maps [0, 255] linearly to this range; None for another function.
      rules: the generation of rules by which files are decoded, see `DATA_RULES`.
    """

    key: ClassVar[str] = "image"
    what: ClassVar[str] = "images"

    height: int
    width: int
    channels: int
    preprocess: Callable[[Any], Any]
    range_text: str
    range: tuple[float, float] | None = None
    rules: int = DATA_RULES

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        return (self.height, self.width, self.channels)


@dataclasses.dataclass(frozen=True)
class TextSpec:
    """The contract of the feature ``text``: string [batch], UTF-8. The backbone does the rest, e.g. tokenization."""

    key: ClassVar[str] = "text"
    what: ClassVar[str] = "text"


InputSpec = Union[ImageSpec, TextSpec]


def linear_range(low: float, high: float) -> Callable[[Any], Any]:
    """Returns a preprocessing function that maps [0, 255] to [low, high]."""
    scale = (high - low) / 255.0

    def preprocess(pixels: Tensor) -> Any:
        return pixels * scale + low

    return preprocess
