"""Compares a run's checkpoints with its plans: which variables moved, and which were allowed to move."""

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
    """The values of a backbone's variables at a global step. They are read one by one to save memory."""

    step: int
    value: Callable[[str], Any]


@dataclasses.dataclass(frozen=True)
class Course:
    """The plans of a run, in order: (plan, the global step at which the next one begins; None for the last plan)."""

    plans: Sequence[tuple[VariablePlan, int | None]]

    @property
    def structure(self) -> SourceStructure:
        """The structure of the run's backbone."""
        return self.plans[0][0].structure

    def may_move(self, variable: SourceVariable, first: int, last: int) -> bool:
        """Returns whether the steps first <= step < last may have moved a variable."""
        start = 0
        for plan, until in self.plans:
            steps = Interval(start, until).within(Interval(first, last))
            if any(steps.overlaps(interval) for interval in _moving_steps(plan, variable)):
                return True
            start = until or start
        return False

    def is_recalibrated(self, variable: SourceVariable) -> bool:
        """Returns whether a variable is a statistic that was estimated again before the first step."""
        return self.plans[0][0].batch_norm == "recalibrate" and not variable.trainable


def _moving_steps(plan: VariablePlan, variable: SourceVariable) -> list[Interval]:
    """Returns the steps in which a plan moves a variable, by gradients or as a statistic."""
    if variable.name in plan.trainable:
        return plan.active_steps(variable.name)
    if plan.may_change(variable):
        return [Interval()]
    return []


@dataclasses.dataclass(frozen=True)
class Finding:
    """How one variable changed in a run.

    Attributes:
      variable: the variable.
      moved: whether any bit of the last value differs from the first value.
      distance: Euclidean norm of the difference between the last and the first value.
      norm: Euclidean norm of the first value.
      contradiction: what contradicts the plans, in words that follow the variable's name; empty if nothing does.
    """

    variable: SourceVariable
    moved: bool
    distance: float
    norm: float
    contradiction: str = ""


def audit(course: Course, start: State, checkpoints: Sequence[State]) -> list[Finding]:
    """Compares a run's checkpoints with each other and with the start of the run.

    Args:
      course: the plans of the run.
      start: the backbone (or the checkpoint that the run was warm-started from), at step 0.
      checkpoints: at least one, in order of their steps.
    """
    findings = [_finding(course, variable, start, checkpoints) for variable in course.structure.variables]
    resting = _resting_statistics(course, findings, checkpoints[-1].step)
    text = f"did not move until step {checkpoints[-1].step}, though its batch norm was in training mode"
    return [dataclasses.replace(f, contradiction=text) if f.variable in resting else f for f in findings]


def _resting_statistics(course: Course, findings: Sequence[Finding], step: int) -> set[SourceVariable]:
    """Returns the statistics that should have moved before a step, if no statistic of their batch norm moved.

    A single statistic may rightly rest: the mean of a convolution that returns zeros does not move. In a backbone with
    one training switch all batch norms count as one.
    """
    layers: dict[str | None, list[Finding]] = {}
    for finding in findings:
        if is_statistic(finding.variable) and course.may_move(finding.variable, 0, step):
            layers.setdefault(finding.variable.batch_norm, []).append(finding)
    resting = [members for members in layers.values() if not any(finding.moved for finding in members)]
    return {finding.variable for members in resting for finding in members}


def _finding(course: Course, variable: SourceVariable, start: State, checkpoints: Sequence[State]) -> Finding:
    import numpy as np

    first = before = start.value(variable.name)
    step, contradiction = 0, ""
    for state in checkpoints:
        value = state.value(variable.name)
        estimated = before is first and course.is_recalibrated(variable)
        if not np.array_equal(value, before) and not estimated and not course.may_move(variable, step, state.step):
            since = "the source" if before is first and step == 0 else f"step {step}"
            contradiction = contradiction or f"moved between {since} and step {state.step}, where it is frozen"
        before, step = value, state.step
    has_moved = not np.array_equal(before, first)
    if not has_moved and variable.trainable and course.may_move(variable, 0, step):
        contradiction = f"did not move until step {step}, though it was trained"
    difference = before.astype(np.float64) - first
    return Finding(
        variable,
        has_moved,
        float(np.linalg.norm(difference)),
        float(np.linalg.norm(first.astype(np.float64))),
        contradiction,
    )


def audit_table(findings: Sequence[Finding]) -> str:
    """Returns a table with a row for each group: how many weights and statistics moved, and the relative distance."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.variable.group, []).append(finding)
    rows = [(name, *_cells(members)) for name, members in groups.items()]
    if len(rows) > _MOST_ROWS:
        rows = _merge_resting(rows)
    return text_table(("group", "weights moved", "by", "statistics moved"), rows, left=(0,))


def _cells(members: Sequence[Finding]) -> tuple[str, str, str]:
    weights = [f for f in members if f.variable.trainable]
    others = [f for f in members if not f.variable.trainable]
    distance = math.hypot(*(f.distance for f in weights))
    norm = math.hypot(*(f.norm for f in weights))
    change = ""
    if distance and norm:
        change = f"{100 * distance / norm:.3g}%"
    elif distance:
        change = "from 0"
    return _count(weights), change, _count(others)


def _count(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    return f"{sum(f.moved for f in findings)} of {len(findings)}"


def _merge_resting(rows: Sequence[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """Joins adjacent groups in which nothing moved to one row."""
    short_rows: list[tuple[str, str, str, str]] = []
    resting: list[str] = []

    def add_resting() -> None:
        if not resting:
            return
        name = resting[0]
        if len(resting) > 1:
            name += f" ... {resting[-1]} ({len(resting)} groups)"
        short_rows.append((name, "none", "", ""))
        resting.clear()

    for row in rows:
        if all(cell.startswith("0 of") or not cell for cell in row[1:]):
            resting.append(row[0])
        else:
            add_resting()
            short_rows.append(row)
    add_resting()
    return short_rows


def contradictions(findings: Sequence[Finding]) -> list[str]:
    """Returns a line for each variable that contradicts the plans."""
    return [f"{finding.variable.name} {finding.contradiction}" for finding in findings if finding.contradiction]


def state_of(step: int, values: Mapping[str, Any]) -> State:
    """Returns a state whose values are in memory."""
    return State(step, values.__getitem__)
