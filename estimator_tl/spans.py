"""Intervals of global steps, and what is trained in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Interval:
    """The global steps start <= step < end; all steps from `start` on where `end` is None."""

    start: int = 0
    end: int | None = None

    @property
    def length(self) -> int | None:
        """Number of steps; None where there is no end."""
        return None if self.end is None else max(self.end - self.start, 0)

    def contains(self, step: Any) -> Any:
        """Returns whether a step, a number or an integer tensor, lies in it: a bool, or a bool tensor."""
        from_start = step >= self.start
        return from_start if self.end is None else from_start & (step < self.end)

    def end_by(self, last: int) -> int:
        """Returns where it ends, `last` at the latest."""
        return last if self.end is None else min(self.end, last)

    def within(self, other: Interval) -> Interval:
        """Returns the part that lies in another interval."""
        return Interval(max(self.start, other.start), self.end if other.end is None else self.end_by(other.end))

    def overlaps(self, other: Interval) -> bool:
        """Returns whether a step lies in both."""
        return self.within(other).length != 0


@dataclasses.dataclass(frozen=True)
class Span(Interval):
    """What is trained in an interval of steps, and at which learning rate.

    Attributes:
      trainable: names of the source's variables that are trained.
      policy: the tuning policy that selects them, as text.
      phase: the phase as its user writes it; empty where the policy has no phases.
      learning_rate: a number or a schedule's spec that begins with the span; None for the run's.
      multiplier: factor on the learning rate.
      restart: whether the run's schedule begins anew with the span (and ends with it, where it needs an end).
    """

    trainable: frozenset[str] = frozenset()
    policy: str = ""
    phase: str = ""
    learning_rate: float | str | None = None
    multiplier: float = 1.0
    restart: bool = False


def joined(intervals: Iterable[Interval]) -> list[Interval]:
    """Returns intervals, given in order, without empty ones and with neighbours made one."""
    parts: list[Interval] = []
    for interval in (item for item in intervals if item.length != 0):
        if parts and parts[-1].end == interval.start:
            parts[-1] = Interval(parts[-1].start, interval.end)
        else:
            parts.append(interval)
    return parts
