"""Intervals of global steps, and the variables that are trained in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Interval:
    """The global steps start <= step < end. Without an `end` it holds all steps from `start` on."""

    start: int = 0
    end: int | None = None

    @property
    def length(self) -> int | None:
        """Number of steps; None for an interval without end."""
        if self.end is None:
            return None
        return max(self.end - self.start, 0)

    def contains(self, step: Any) -> Any:
        """Returns whether a step is in the interval: a bool for a number, a bool tensor for an integer tensor."""
        if self.end is None:
            return step >= self.start
        return (step >= self.start) & (step < self.end)

    def end_by(self, last: int) -> int:
        """Returns the end of the interval, but at most `last`."""
        if self.end is None:
            return last
        return min(self.end, last)

    def within(self, other: Interval) -> Interval:
        """Returns the intersection with another interval; its length may be 0."""
        start = max(self.start, other.start)
        if other.end is None:
            return Interval(start, self.end)
        return Interval(start, self.end_by(other.end))

    def overlaps(self, other: Interval) -> bool:
        """Returns whether the two intervals have a step in common."""
        return self.within(other).length != 0


@dataclasses.dataclass(frozen=True)
class Span(Interval):
    """The variables that are trained in an interval of steps, and their learning rate.

    Attributes:
      trainable: names of the backbone's variables that are trained.
      policy: the tuning policy that selects the variables, as text.
      phase: the phase as the user writes it; empty for a policy without phases.
      learning_rate: a number, or the spec of a schedule that begins with the span; None for the run's learning rate.
      multiplier: factor on the learning rate.
      restart: whether the run's schedule starts again with the span (and ends with it, if it needs an end).
    """

    trainable: frozenset[str] = frozenset()
    policy: str = ""
    phase: str = ""
    learning_rate: float | str | None = None
    multiplier: float = 1.0
    restart: bool = False


def join_intervals(intervals: Iterable[Interval]) -> list[Interval]:
    """Drops empty intervals and joins adjacent ones; the intervals must be in order."""
    parts: list[Interval] = []
    for interval in (item for item in intervals if item.length != 0):
        if parts and parts[-1].end == interval.start:
            parts[-1] = Interval(parts[-1].start, interval.end)
        else:
            parts.append(interval)
    return parts
