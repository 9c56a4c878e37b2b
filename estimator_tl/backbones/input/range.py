"""Finds which range of images a model takes, from the model's own arithmetic on them.

The arithmetic before the first weights is treated as an affine map for each element. The map is tried on images in a
few well-known ranges. If exactly one of them becomes a range that networks are trained on, it is the range that the
model takes. If none or several do, the range stays unknown.
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
#: Maps images, float32 [1, height, width, channels], to the tensor before the weights.
Function = Callable[[Array], Array]

BYTES, UNIT, SIGNED = (0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)
RANGES = (BYTES, UNIT, SIGNED)
#: Ranges that networks are trained on, by the range of the images before rescaling.
_TARGETS: Mapping[Range, Sequence[Range]] = {
    BYTES: (UNIT, SIGNED, (-0.5, 0.5), (-127.5, 127.5), BYTES),
    UNIT: (SIGNED, (-0.5, 0.5), BYTES, (-127.5, 127.5), UNIT),
    SIGNED: (UNIT, BYTES, SIGNED),
}
_WIDTHS = (1.0, 2.0, 255.0)  # widths of ranges after subtracting only a mean
_CLOSE = 0.02  # tolerance, as a part of a range's width: x / 256 counts as a map to [0, 1]
_SAME = 2e-3  # tolerance for the identity: batch norm that was never trained has an epsilon
_LINEAR = 0.01  # tolerance for linearity, as a part of the span, because of half precision
_MIN_SHARE = 0.76  # of elements: more than three channels of four, but borders of padded images may differ
_CLIP_PROBE = 1e4
_SAMPLE = 6000  # elements to use of large images
_DIGITS = 5  # that float32 keeps in a difference of two values


class UnknownRangeError(UserError):
    """No range of images follows from what a backbone does to them."""


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
        """Whether values stay unchanged; channels may be reordered, or become grey."""
        same = np.abs(self.matrix.sum(axis=1) - 1) < _SAME
        positive = (self.matrix > -_SAME).all(axis=1)
        return _holds(same & positive & (np.abs(self.offset) < _SAME * (self.range[1] - self.range[0])))

    def reaches_target(self) -> bool:
        """Returns whether images in the range become images that networks are trained on."""
        low, high = self.range
        ends = np.sort([self.matrix * low, self.matrix * high], axis=0).sum(axis=2) + self.offset
        matches = np.zeros(len(self.offset), bool)
        for target in _TARGETS[self.range]:
            is_close = np.abs(ends - np.reshape(target, (2, 1))).max(axis=0) <= _CLOSE * (target[1] - target[0])
            if target == self.range:  # the identity does not show the range, but turning dark to bright does
                is_close &= self.matrix.sum(axis=1) < 0
            matches |= is_close
        return _holds(matches | self._is_standard(ends[0], ends[1]))

    def _is_standard(self, low: Array, high: Array) -> Array:
        """Returns whether the map subtracts a mean, and perhaps divides by a deviation, as images in the range have."""
        with np.errstate(divide="ignore", invalid="ignore"):
            width = high - low
            mean, deviation = -low / width, 1 / width  # as parts of the range
            possible = np.sqrt(np.clip(mean * (1 - mean), 0, None)) * 1.05
        normal = (deviation >= 0.03) & (deviation <= possible)
        centred = np.any([np.abs(width - w) <= _CLOSE * w for w in _WIDTHS], axis=0)
        if self.range != SIGNED:
            return (mean >= 0.02) & (mean <= 0.98) & (normal | centred)
        # Images in [0, 1] can have such statistics as well; they count for [-1, 1] only if they are usual there.
        usual = (mean >= 0.1) & (mean <= 0.67) & (np.abs(self.offset) > _SAME)
        return usual & ((normal & (deviation >= 0.13) & (deviation <= 0.5)) | centred)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a model does to its input.

    Attributes:
      text: the arithmetic in words; empty where it does nothing.
      range: the range of images that follows from it; None where no range follows.
    """

    text: str
    range: Range | None


NOTHING = Finding("", None)


def find(function: Function, shape: Sequence[int], ranges: Sequence[Range] = RANGES) -> Finding:
    """Finds what a function does to images, and the range of images that it is made for.

    Args:
      function: see `Function`.
      shape: [1, height, width, channels].
      ranges: the ranges to choose from.
    """
    with np.errstate(all="ignore"):
        fits = {values: fit for values in RANGES if (fit := fit_map(function, shape, values)) is not None}
        if not fits:
            return Finding("arithmetic that is not a fixed scale and offset", None)
        if all(fit.is_identity for fit in fits.values()):
            return _identity_finding(function, shape, list(fits))
        matches = [values for values in ranges if values in fits and fits[values].reaches_target()]
        if len(matches) == 1:
            return Finding(map_text(fits[matches[0]]), matches[0])
        return Finding(map_text(next(iter(fits.values()))), None)


def chosen_range(finding: Finding | None, input_range: Range | None) -> Range:
    """Returns the range of the images that a backbone takes: the user's, or the one of the finding, or [0, 1].

    Args:
      finding: what the backbone does to its input.
      input_range: the range that the user sets, if any.

    Raises:
      UnknownRangeError: the finding has no range, and the user sets none.
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
    """Returns the finding for a model with several parts that take the same input."""
    distinct = list(dict.fromkeys(findings))
    if not distinct:
        return NOTHING
    if len(distinct) == 1:
        return distinct[0]
    text = " and ".join(finding.text or "x" for finding in distinct)
    ranges = {finding.range for finding in distinct}
    common_range = ranges.pop() if len(ranges) == 1 else None
    return Finding(f"{text} in different branches", common_range)


def fit_map(function: Function, shape: Sequence[int], values: Range) -> Fit | None:
    """Returns the affine map that equals a function on images in a range; None where the function is not affine.

    Args:
      function: see `Function`.
      shape: [1, height, width, channels].
      values: the range.
    """
    low, high = values
    channels = shape[-1]
    # Multiples of 4 in [0, 255], so that a quarter and a half of them are integers too, for models that round.
    noise = np.random.RandomState(0).randint(0, 64, (2, *shape)) * 4 / 255.0
    first, second = (low + noise * (high - low)).astype(np.float32)
    darkest = np.full(shape, low, np.float32)
    base, one, other = (_values(function, image) for image in (darkest, first, second))
    blends = _values(function, darkest + (first - darkest) / 4), _values(function, (first + second) / 2)
    tolerance = _LINEAR * np.abs(one - base).max(initial=0) + 1e-9
    expected = base + (one - base) / 4, (one + other) / 2
    if not all(_holds(np.abs(a - b) <= tolerance) for a, b in zip(blends, expected)):
        return None
    columns = []
    for channel in range(channels):
        image = darkest.copy()
        image[..., channel] = high
        columns.append((_values(function, image) - base) / (high - low))
    matrix = np.stack(columns, axis=-1)
    size = np.abs(matrix).sum(axis=1)
    is_live = size > 1e-6 * size.max(initial=0)
    if not is_live.any() or not np.isfinite(matrix).all():
        return None
    if np.abs(one - base).max() < 0.1 * size.max() * (high - low):  # only the ends of the range differ: it rounds
        return None
    return Fit(values, matrix[is_live], (base - matrix.sum(axis=1) * low)[is_live])


def map_text(fit: Fit) -> str:
    """Returns a map as text, e.g. ``x / 127.5 - 1``; where channels differ, with a list of numbers in their order."""
    table = np.column_stack([fit.matrix, fit.offset])
    size = np.abs(table).max(axis=0) + 1e-30
    rows, counts = np.unique(np.round(table / size, _DIGITS), axis=0, return_counts=True)
    rows = rows[counts >= 0.1 * counts.max()] * size
    scales, offset = rows[:, :-1], rows[:, -1]
    is_input = np.abs(scales) > _SAME * np.abs(scales).max()
    if (is_input.sum(axis=1) > 1).any():
        if len(rows) > 1:
            return "a mix of the channels"
        return _formula(scales.sum(axis=1), offset)  # grey
    if len(rows) > scales.shape[1]:
        return "a scale and offset that differ from pixel to pixel"
    order = np.argsort(is_input.argmax(axis=1), kind="stable")
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


def _identity_finding(function: Function, shape: Sequence[int], fitting: Sequence[Range]) -> Finding:
    """Returns the finding for a function that leaves values unchanged, within the ranges where it is affine."""
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
        return NOTHING  # such as a ReLU, which does not show the scale
    return Finding(f"clipping to [{bottom:g}, {top:g}]", None)


def _values(function: Function, image: Array) -> Array:
    """Returns a function's values for an image: a fixed sample of the elements."""
    values = np.asarray(function(image.astype(np.float32))).ravel()
    return values[_elements(values.size)].astype(np.float64)


@functools.lru_cache(maxsize=8)
def _elements(size: int) -> Array:
    if size <= _SAMPLE:
        return np.arange(size)
    return np.sort(np.random.RandomState(0).choice(size, _SAMPLE, replace=False))


def _holds(condition: Array) -> bool:
    """Returns whether a condition holds for nearly all elements, and there are elements."""
    return bool(np.size(condition) and np.mean(condition) >= _MIN_SHARE)
