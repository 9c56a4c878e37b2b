"""Formats ratios of step times with their intervals and goals as text."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from throughput_pacing import Sample
from tuning_cost_cases import Case
from tuning_cost_contestants import ALONE, BY_HAND, GATED, ONE_PHASE

_PHASE_GOAL = 1.10


@dataclasses.dataclass(frozen=True)
class Interval:
    """A median, and the order statistics that enclose the true median with a probability of 95%."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def verdict(self, goal: float) -> str:
        """Returns whether the whole interval is on one side of the goal; if not, the side of the median."""
        if self.high <= goal:
            return "met"
        if self.low > goal:
            return "missed"
        return "not decided (median below)" if self.median <= goal else "not decided (median above)"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The cost of a step, as a multiple of a step of another contestant.

    Attributes:
      name: tuning, contestant and reference.
      trained: number of variables of the backbone that both train.
      milliseconds: median of a step of the reference.
      clock: the ratio by the clock.
      cpu: the ratio by CPU time.
      goal: the maximum of the ratio; None for no goal.
    """

    name: str
    trained: int
    milliseconds: float
    clock: Interval
    cpu: Interval
    goal: float | None


def comparisons(case: Case, samples: Mapping[str, Sequence[Sample]], steps: int, trained: int) -> list[Comparison]:
    """Returns the comparisons of one case.

    Args:
      case: the tuning.
      samples: samples of its contestants, by name.
      steps: timed steps in a sample.
      trained: number of variables of the backbone that the contestants train.
    """
    found = []
    for name, reference, goal in ((ALONE, BY_HAND, case.goal), (ONE_PHASE, ALONE, _PHASE_GOAL), (GATED, ALONE, None)):
        if name not in samples:
            continue
        pairs = list(zip(samples[name], samples[reference]))
        found.append(
            Comparison(
                f"{case.policy}: {name} / {reference}",
                trained,
                statistics.median(1000 * sample.seconds / steps for sample in samples[reference]),
                _median_interval([ours.seconds / theirs.seconds for ours, theirs in pairs]),
                _median_interval([ours.cpu_seconds / theirs.cpu_seconds for ours, theirs in pairs]),
                goal,
            )
        )
    return found


def header() -> str:
    """Returns the line above the table."""
    return _columns("step of / step of", "moved", "ms", "by the clock", "by CPU time", "goal")


def line(comparison: Comparison) -> str:
    """Returns a comparison as a line of the table."""
    goal = "" if comparison.goal is None else f"{comparison.goal:.2f}  {comparison.clock.verdict(comparison.goal)}"
    milliseconds = f"{comparison.milliseconds:.0f}"
    return _columns(
        comparison.name, str(comparison.trained), milliseconds, str(comparison.clock), str(comparison.cpu), goal
    )


def verdicts(found: Sequence[Comparison]) -> str:
    """Returns a text with the goals that were met, by the clock and by CPU time."""
    measures: dict[str, Callable[[Comparison], Interval]] = {
        "by the clock": lambda comparison: comparison.clock,
        "by CPU time": lambda comparison: comparison.cpu,
    }
    lines = []
    for measure, of in measures.items():
        judged = [(of(c).verdict(c.goal), c) for c in found if c.goal is not None]
        met = sum(verdict == "met" for verdict, _ in judged)
        lines.append(f"goals met {measure}: {met} of {len(judged)}")
        lines += [f"    {verdict}: {c.name} {of(c)}, goal {c.goal:.2f}" for verdict, c in judged if verdict != "met"]
    return "\n".join(lines)


def _columns(name: str, trained: str, milliseconds: str, clock: str, cpu: str, goal: str) -> str:
    return f"{name:44}{trained:>6}{milliseconds:>6}  {clock:22}{cpu:22}{goal}".rstrip()


def _median_interval(values: Sequence[float]) -> Interval:
    ordered = sorted(values)
    half = 1.96 * math.sqrt(len(ordered)) / 2
    low = max(math.floor(len(ordered) / 2 - half) - 1, 0)
    return Interval(statistics.median(ordered), ordered[low], ordered[-1 - low])
