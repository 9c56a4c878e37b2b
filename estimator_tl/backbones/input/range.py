"""Which range of images a model takes, as its own arithmetic on them tells.

What a model does to its input before the first weights is taken as a map, an affine one for each element. The map is
tried on images in each of a few well-known ranges: the one from which it leads to what networks are trained on is the
range that the model takes. Where that is none, or several, nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from estimator_tl.errors import SOURCE, UserError

Range = tuple[float, float]
Array = Any
#: The images, float32 [1, height, width, channels], to what comes before the weights.
Function = Callable[[Array], Array]

BYTES, UNIT, SIGNED = (0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)
RANGES = (BYTES, UNIT, SIGNED)
#: What networks are trained on, by the range from which rescaling leads there.
_TARGETS: Mapping[Range, Sequence[Range]] = {
    BYTES: (UNIT, SIGNED, (-0.5, 0.5), (-127.5, 127.5), BYTES),
    UNIT: (SIGNED, (-0.5, 0.5), BYTES, (-127.5, 127.5), UNIT),
    SIGNED: (UNIT, BYTES, SIGNED),
}
_WIDTHS = (1.0, 2.0, 255.0)  # of what subtracting a mean alone leads to
_CLOSE = 0.02  # of a range's width: x / 256 leads to [0, 1], too
_SAME = 2e-3  # by which a map may differ from none: batch norm that was never trained has its epsilon
_LINEAR = 0.01  # of a span: by which half precision is not linear
_MOST = 0.76  # of all elements, those of three channels of four not being it; borders of padded images may differ
_CLIP_PROBE = 1e4
_SAMPLE = 6000  # elements of large images
_DIGITS = 5  # that float32 leaves of a difference of two values


class UnknownRangeError(UserError):
    """A source does something to its images from which no range follows."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """An affine map within one range, for each element that depends on the image.

    Attributes:
      range: of the images.
      matrix: float64 [elements, channels].
      offset: float64 [elements].
    """

    range: Range
    matrix: Array
    offset: Array

    @property
    def is_identity(self) -> bool:
        """Whether values stay what they are; channels may change places, or become grey."""
        same = np.abs(self.matrix.sum(axis=1) - 1) < _SAME
        positive = (self.matrix > -_SAME).all(axis=1)
        return _holds(same & positive & (np.abs(self.offset) < _SAME * (self.range[1] - self.range[0])))

    def leads_somewhere(self) -> bool:
        """Whether images in the range become what networks are trained on."""
        low, high = self.range
        ends = np.sort([self.matrix * low, self.matrix * high], axis=0).sum(axis=2) + self.offset
        is_one = np.zeros(len(self.offset), bool)
        for target in _TARGETS[self.range]:
            near = np.abs(ends - np.reshape(target, (2, 1))).max(axis=0) <= _CLOSE * (target[1] - target[0])
            # Mapping a range to itself is no reason to take it, but turning dark to bright is.
            is_one |= near & ((self.matrix.sum(axis=1) < 0) if target == self.range else True)
        return _holds(is_one | self._is_standard(ends[0], ends[1]))

    def _is_standard(self, low: Array, high: Array) -> Array:
        """Whether the map subtracts a mean, and may divide by a deviation, that images in the range can have."""
        with np.errstate(divide="ignore", invalid="ignore"):
            width = high - low
            mean, deviation = -low / width, 1 / width  # as parts of the range
            possible = np.sqrt(np.clip(mean * (1 - mean), 0, None)) * 1.05
        normal = (deviation >= 0.03) & (deviation <= possible)
        centred = np.any([np.abs(width - w) <= _CLOSE * w for w in _WIDTHS], axis=0)
        if self.range != SIGNED:
            return (mean >= 0.02) & (mean <= 0.98) & (normal | centred)
        # Statistics that images in [0, 1] have, too, are taken for one of [-1, 1] only where they are usual there.
        usual = (mean >= 0.1) & (mean <= 0.67) & (np.abs(self.offset) > _SAME)
        return usual & ((normal & (deviation >= 0.13) & (deviation <= 0.5)) | centred)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a model does to its input.

    Attributes:
      text: in words; empty where it does nothing.
      range: that follows; None where none does.
    """

    text: str
    range: Range | None


NOTHING = Finding("", None)


def find(function: Function, shape: Sequence[int], ranges: Sequence[Range] = RANGES) -> Finding:
    """Finds out what a function does to images, and from which range it leads to what networks take.

    Args:
      function: see `Function`.
      shape: [1, height, width, channels].
      ranges: of images that come into question.
    """
    with np.errstate(all="ignore"):
        fits = {tried: fit for tried in RANGES if (fit := fitted(function, shape, tried)) is not None}
        if not fits:
            return Finding("arithmetic that is no fixed scale and offset", None)
        if all(fit.is_identity for fit in fits.values()):
            return _of_identity(function, shape, list(fits))
        chosen = [tried for tried in ranges if tried in fits and fits[tried].leads_somewhere()]
        if len(chosen) == 1:
            return Finding(described(fits[chosen[0]]), chosen[0])
        return Finding(described(next(iter(fits.values()))), None)


def chosen_range(finding: Finding | None, input_range: Range | None) -> Range:
    """Returns the range of the images that a source takes: the user's, or what follows from the source, or [0, 1].

    Args:
      finding: what the source does to its input.
      input_range: the range that the user asks for, if any.

    Raises:
      UnknownRangeError: no range follows from what it does, and the user names none.
    """
    if input_range is not None:
        low, high = input_range
        return float(low), float(high)
    if finding is None or not finding.text:
        return UNIT
    if finding.range is None:
        raise UnknownRangeError(
            f"{SOURCE} changes its input before its first weights, and no range of images follows from that: "
            f"{finding.text}; say which values it takes with --input_range, e.g. 0,255 or 0,1 or -1,1."
        )
    return finding.range


def joined(findings: Sequence[Finding]) -> Finding:
    """Returns the finding for a model whose parts take the same input."""
    distinct = list(dict.fromkeys(findings))
    if not distinct:
        return NOTHING
    if len(distinct) == 1:
        return distinct[0]
    text = " and ".join(finding.text or "x" for finding in distinct)
    ranges = {finding.range for finding in distinct}
    return Finding(f"{text} in different branches", ranges.pop() if len(ranges) == 1 else None)


def fitted(function: Function, shape: Sequence[int], tried: Range) -> Fit | None:
    """Returns the affine map that a function is for images in a range; None where it is none.

    Args:
      function: see `Function`.
      shape: [1, height, width, channels].
      tried: the range.
    """
    low, high = tried
    channels = shape[-1]
    # Whole numbers in [0, 255] at a quarter and at a half too, for models that round.
    drawn = np.random.RandomState(0).randint(0, 64, (2, *shape)) * 4 / 255.0
    first, second = (low + drawn * (high - low)).astype(np.float32)
    dark = np.full(shape, low, np.float32)
    base, one, other = (_values(function, image) for image in (dark, first, second))
    mixed = _values(function, dark + (first - dark) / 4), _values(function, (first + second) / 2)
    tolerance = _LINEAR * np.abs(one - base).max(initial=0) + 1e-9
    expected = base + (one - base) / 4, (one + other) / 2
    if not all(_holds(np.abs(a - b) <= tolerance) for a, b in zip(mixed, expected)):
        return None
    columns = []
    for channel in range(channels):
        image = dark.copy()
        image[..., channel] = high
        columns.append((_values(function, image) - base) / (high - low))
    matrix = np.stack(columns, axis=-1)
    size = np.abs(matrix).sum(axis=1)
    live = size > 1e-6 * size.max(initial=0)
    if not live.any() or not np.isfinite(matrix).all():
        return None
    if np.abs(one - base).max() < 0.1 * size.max() * (high - low):  # only the ends of the range differ, as by rounding
        return None
    return Fit(tried, matrix[live], (base - matrix.sum(axis=1) * low)[live])


def described(fit: Fit) -> str:
    """Returns a map in words, e.g. ``x / 127.5 - 1``; where channels differ, with lists in their order."""
    table = np.column_stack([fit.matrix, fit.offset])
    size = np.abs(table).max(axis=0) + 1e-30
    rows, counts = np.unique(np.round(table / size, _DIGITS), axis=0, return_counts=True)
    rows = rows[counts >= 0.1 * counts.max()] * size
    scales, offset = rows[:, :-1], rows[:, -1]
    used = np.abs(scales) > _SAME * np.abs(scales).max()
    if (used.sum(axis=1) > 1).any():
        if len(rows) > 1:
            return "a mix of the channels"
        return _formula(scales.sum(axis=1), offset)  # grey
    if len(rows) > scales.shape[1]:
        return "a scale and offset that differ from pixel to pixel"
    order = np.argsort(used.argmax(axis=1), kind="stable")
    return _formula(scales.sum(axis=1)[order], offset[order])


def _formula(scale: Array, offset: Array) -> str:
    if (scale < 0).all():
        return _scaled(f"({_numbers(-offset / scale)} - x)", -scale)
    if np.ptp(scale) > 0 or (np.ptp(offset) > 0 and not np.allclose(scale, 1, rtol=1e-4)):
        return _scaled(f"(x{_signed(offset / scale)})", scale)
    return _scaled("x", scale) + _signed(offset)


def _scaled(term: str, scale: Array) -> str:
    if np.allclose(scale, 1, rtol=1e-4):
        return term.removeprefix("(").removesuffix(")")
    if (np.abs(scale) < 1).all():
        return f"{term} / {_numbers(1 / scale)}"
    return f"{term} * {_numbers(scale)}"


def _signed(offset: Array) -> str:
    if np.abs(offset).max() < 1e-6:
        return ""
    if (offset < 0).all():
        return f" - {_numbers(-offset)}"
    return f" + {_numbers(offset)}"


def _numbers(values: Array) -> str:
    texts = [f"{value:.4g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"[{', '.join(texts)}]"


def _of_identity(function: Function, shape: Sequence[int], fitting: Sequence[Range]) -> Finding:
    """Returns what follows where values stay what they are, within the ranges where the function is affine."""
    if len(fitting) == len(RANGES):
        return NOTHING
    if len(fitting) == 1:
        low, high = fitting[0]
        return Finding(f"rounding or clipping to [{low:g}, {high:g}]", fitting[0])
    ends = [_values(function, np.full(shape, value, np.float32)) for value in (-_CLIP_PROBE, _CLIP_PROBE)]
    bottom, top = ends[0].min(), ends[1].max()
    for low, high in fitting:
        if max(abs(bottom - low), abs(top - high)) < _CLOSE * (high - low):
            return Finding(f"clipping to [{low:g}, {high:g}]", (low, high))
    if top >= _CLIP_PROBE:
        return NOTHING  # such as a ReLU, which says nothing of the scale
    return Finding(f"clipping to [{bottom:g}, {top:g}]", None)


def _values(function: Function, image: Array) -> Array:
    """Returns what a function gives for an image: always the same elements, as many as are enough to judge by."""
    values = np.asarray(function(image.astype(np.float32))).ravel()
    return values[_elements(values.size)].astype(np.float64)


@functools.lru_cache(maxsize=8)
def _elements(size: int) -> Array:
    if size <= _SAMPLE:
        return np.arange(size)
    return np.sort(np.random.RandomState(0).choice(size, _SAMPLE, replace=False))


def _holds(condition: Array) -> bool:
    """Whether a condition holds for nearly all elements."""
    return bool(np.mean(condition) >= _MOST) if np.size(condition) else False
