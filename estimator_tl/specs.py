"""What a model takes in; decoding, serving receivers and random test data derive from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Union

#: Graph collection in which an input pipeline says that a run which goes on finds its place again.
INPUT_PLACE = "estimator_tl/input_place"

#: The newest generation of the rules by which data files are listed and decoded. A run keeps the one it began with.
#: 1: image orientation and transparency are ignored, palettes of BMP files too; class folders are flat;
#:    tables are read as `inputs/tables/first_rules.py` does.
#: 2: orientation is respected, transparency is composited on white; every file of a class folder is used or counted;
#:    rows of tables end at line ends only, and are quoted or separated as the whole file shows.
DATA_RULES = 2


#: The feature that weighs examples.
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
        the source was trained on; keeps the shape.
      range_text: that range or function in words, for people.
      range: (low, high) where `preprocess` is the linear map of [0, 255] to it; None for a function of the source.
      rules: the generation of rules by which files are decoded, see `DATA_RULES`.
    """

    key: ClassVar[str] = "image"
    what: ClassVar[str] = "pictures"

    height: int
    width: int
    channels: int
    preprocess: Callable[[Any], Any]
    range_text: str
    range: tuple[float, float] | None = None
    rules: int = DATA_RULES

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one picture."""
        return (self.height, self.width, self.channels)


@dataclasses.dataclass(frozen=True)
class TextSpec:
    """The contract of the feature ``text``: string [batch], UTF-8; the source does what else is to be done with it."""

    key: ClassVar[str] = "text"
    what: ClassVar[str] = "text"


InputSpec = Union[ImageSpec, TextSpec]


def linear_range(low: float, high: float) -> Callable[[Any], Any]:
    """Returns a preprocessing function that maps [0, 255] to [low, high]."""
    scale = (high - low) / 255.0

    def preprocess(pixels: Any) -> Any:
        return pixels * scale + low

    return preprocess
