"""What a run's checkpoints say moved, held against what its plans say may have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl.spans import Interval
from estimator_tl.structure import SourceStructure, SourceVariable, is_statistic
from estimator_tl.tuning.plan import VariablePlan
from estimator_tl.tuning.table import text_table

_MOST_ROWS = 40


@dataclasses.dataclass(frozen=True)
class State:
    """The values of a source's variables at a global step; read one by one, as all may be large."""

    step: int
    value: Callable[[str], Any]


@dataclasses.dataclass(frozen=True)
class Course:
    """The plans that held in a run, in order: each until a global step, the last for ever."""

    plans: Sequence[tuple[VariablePlan, int | None]]

    @property
    def structure(self) -> SourceStructure:
        """The source's."""
        return self.plans[0][0].structure

    def may_move(self, variable: SourceVariable, first: int, last: int) -> bool:
        """True for variables that the steps first <= step < last may have moved."""
        start = 0
        for plan, until in self.plans:
            steps = Interval(start, until).within(Interval(first, last))
            if any(steps.overlaps(interval) for interval in _moving_steps(plan, variable)):
                return True
            start = until or start
        return False

    def recalibrated(self, variable: SourceVariable) -> bool:
        """True for statistics that were estimated anew before the first step."""
        return self.plans[0][0].batch_norm == "recalibrate" and not variable.trainable


def _moving_steps(plan: VariablePlan, variable: SourceVariable) -> list[Interval]:
    """Returns when a plan moves a variable, by gradients or as a statistic."""
    if variable.name in plan.trainable:
        return plan.active_steps(variable.name)
    return [Interval()] if plan.may_change(variable) else []


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of one variable.

    Attributes:
      variable: which.
      moved: whether it is not what it was in the beginning, bit for bit.
      distance: Euclidean norm of the difference.
      norm: of what it was in the beginning.
      contradiction: what the plan does not allow for, in words; empty where it agrees.
    """

    variable: SourceVariable
    moved: bool
    distance: float
    norm: float
    contradiction: str = ""


def audit(course: Course, start: State, checkpoints: Sequence[State]) -> list[Finding]:
    """Compares a run's checkpoints, in order of their steps, with one another and with where it began.

    Args:
      course: the plans.
      start: the source (or what the run was warm-started from), at step 0.
      checkpoints: at least one.
    """
    findings = [_finding(course, variable, start, checkpoints) for variable in course.structure.variables]
    resting = _resting_statistics(course, findings, checkpoints[-1].step)
    text = f"did not move until step {checkpoints[-1].step}, though its batch norm was in training mode"
    return [dataclasses.replace(f, contradiction=text) if f.variable in resting else f for f in findings]


def _resting_statistics(course: Course, findings: Sequence[Finding], step: int) -> set[SourceVariable]:
    """Returns the statistics that training mode was to move by a step, where none of their batch norm has moved.

    One alone may stay what it is, as the mean of a convolution that gives zeros does. A source with one training
    switch does not tell its batch norms apart.
    """
    layers: dict[str | None, list[Finding]] = {}
    for finding in findings:
        if is_statistic(finding.variable) and course.may_move(finding.variable, 0, step):
            layers.setdefault(finding.variable.batch_norm, []).append(finding)
    whole = [members for members in layers.values() if not any(finding.moved for finding in members)]
    return {finding.variable for members in whole for finding in members}


def _finding(course: Course, variable: SourceVariable, start: State, checkpoints: Sequence[State]) -> Finding:
    import numpy as np

    first = before = start.value(variable.name)
    step, contradiction = 0, ""
    for state in checkpoints:
        value = state.value(variable.name)
        estimated = before is first and course.recalibrated(variable)
        if not np.array_equal(value, before) and not estimated and not course.may_move(variable, step, state.step):
            since = "the source" if before is first and step == 0 else f"step {step}"
            contradiction = contradiction or f"moved between {since} and step {state.step}, where it is frozen"
        before, step = value, state.step
    moved = not np.array_equal(before, first)
    if not moved and variable.trainable and course.may_move(variable, 0, step):
        contradiction = f"did not move until step {step}, though it was trained"
    difference = before.astype(np.float64) - first
    return Finding(
        variable,
        moved,
        float(np.linalg.norm(difference)),
        float(np.linalg.norm(first.astype(np.float64))),
        contradiction,
    )


def audit_table(findings: Sequence[Finding]) -> str:
    """Returns a row a group: how many of its weights and statistics moved, and how far relative to their norm."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.variable.group, []).append(finding)
    rows = [(name, *_cells(members)) for name, members in groups.items()]
    if len(rows) > _MOST_ROWS:
        rows = _shortened(rows)
    return text_table(("group", "weights moved", "by", "statistics moved"), rows, left=(0,))


def _cells(members: Sequence[Finding]) -> tuple[str, str, str]:
    weights = [f for f in members if f.variable.trainable]
    others = [f for f in members if not f.variable.trainable]
    distance = math.hypot(*(f.distance for f in weights)) if weights else 0.0
    norm = math.hypot(*(f.norm for f in weights)) if weights else 0.0
    far = "" if not distance else f"{100 * distance / norm:.3g}%" if norm else "from 0"
    return _count(weights), far, _count(others)


def _count(findings: Sequence[Finding]) -> str:
    return f"{sum(f.moved for f in findings)} of {len(findings)}" if findings else ""


def _shortened(rows: Sequence[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """Joins neighbouring groups of which nothing moved."""
    found: list[tuple[str, str, str, str]] = []
    quiet: list[str] = []

    def close() -> None:
        if quiet:
            more = f" ... {quiet[-1]} ({len(quiet)} groups)" if len(quiet) > 1 else ""
            found.append((f"{quiet[0]}{more}", "none", "", ""))
            quiet.clear()

    for row in rows:
        if all(cell.startswith("0 of") or not cell for cell in row[1:]):
            quiet.append(row[0])
        else:
            close()
            found.append(row)
    close()
    return found


def contradictions(findings: Sequence[Finding]) -> list[str]:
    """Returns a line for each variable that contradicts the plans."""
    return [f"{finding.variable.name} {finding.contradiction}" for finding in findings if finding.contradiction]


def state_of(step: int, values: Mapping[str, Any]) -> State:
    """Returns a state from values that are in memory."""
    return State(step, values.__getitem__)
