"""The plan as text: a table with a row for each group, and a one-line summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from estimator_tl.spans import Interval
from estimator_tl.structure import SourceVariable
from estimator_tl.tuning.plan import VariablePlan

_MOST_ROWS = 40


def plan_table(plan: VariablePlan, head_sizes: Mapping[str, int] | None = None) -> str:
    """Returns the plan as text: a row for each group, and the summary below.

    In a long table adjacent groups in the same state share a row.

    Args:
      plan: the plan.
      head_sizes: the number of parameters of each head variable, if known.
    """
    groups: dict[str, list[SourceVariable]] = {}
    for variable in plan.structure.variables:
        groups.setdefault(variable.group, []).append(variable)
    rows = [_row(plan, name, variables) for name, variables in groups.items()]
    if len(rows) > _MOST_ROWS:
        rows = _merge_runs(rows)
    for name, size in (head_sizes or {}).items():
        rows.append((name, "train", 1, size, size, ""))
    header = ("group", "state", "variables", "trained", "parameters", "batch norm")
    cells = [(n, s, str(c), f"{t:,}", f"{p:,}", b) for n, s, c, t, p, b in rows]
    dropout = "on" if plan.dropout else "off"
    lines = [
        f"tuning {plan.policy}, batch norm {_batch_norm(plan)}, backbone dropout {dropout}",
        text_table(header, cells, left=(0, 1, 5)),
        *(f"note: {note}" for note in plan.structure.notes),
    ]
    phases = [phase_line(plan, number, head_sizes) for number in range(len(plan.spans))]
    return "\n".join([*lines, *filter(None, phases), summary(plan, head_sizes)])


def _batch_norm(plan: VariablePlan) -> str:
    moves = any(plan.may_change(v) for v in plan.structure.variables if not v.trainable)
    if plan.batch_norm == "train" and not moves:
        return "train (of no layer: nothing that is trained has any)"
    return plan.batch_norm


def phase_line(plan: VariablePlan, number: int, head_sizes: Mapping[str, int] | None = None) -> str:
    """Returns a line about a phase (numbers begin at 0): its steps, its policy and how many parameters it trains.

    The line is empty for a policy without phases, as the table already says everything.
    """
    span = plan.spans[number]
    if not span.phase:
        return ""
    head = sum((head_sizes or {}).values())
    trainable = head + sum(v.size for v in plan.structure.variables if v.name in span.trainable)
    rate = ""
    if span.learning_rate is not None:
        rate += f", learning rate {span.learning_rate}"
    if span.multiplier != 1:
        rate += f", learning rate times {span.multiplier:g}"
    if span.restart:
        rate += ", schedule begun anew"
    return f"phase {number + 1}, {_steps_text(span)}: {span.policy}, trains {trainable:,}{rate}"


def _steps_text(steps: Interval) -> str:
    if steps.end is None:
        return f"from step {steps.start}"
    return f"steps {steps.start} to {steps.end - 1}"


def summary(plan: VariablePlan, head_sizes: Mapping[str, int] | None = None) -> str:
    """Returns ``trainable params: 6,405 || all params: 2,264,389 || trainable%: 0.2829``."""
    head = sum((head_sizes or {}).values())
    trainable = sum(v.size for v in plan.structure.variables if v.name in plan.trainable) + head
    total = sum(v.size for v in plan.structure.variables) + head
    return f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {100 * trainable / total:.4f}"


_Row = tuple[str, str, int, int, int, str]


def _row(plan: VariablePlan, name: str, variables: Sequence[SourceVariable]) -> _Row:
    weights = [v for v in variables if v.name in plan.trainable]
    state = _state(plan, weights, sum(v.trainable for v in variables))
    batch_norm = ""
    if any(v.name not in plan.trainable and plan.may_change(v) for v in variables):
        batch_norm = "train"
    elif any(v.batch_norm for v in variables):
        batch_norm = "inference"
    return name, state, len(variables), sum(v.size for v in weights), sum(v.size for v in variables), batch_norm


def _state(plan: VariablePlan, weights: Sequence[SourceVariable], trainable_count: int) -> str:
    """Returns the state of a group: frozen, train, the steps in which it is trained, or partly.

    Args:
      plan: the plan.
      weights: the variables of the group that the plan trains.
      trainable_count: how many variables of the group can be trained.
    """
    if not weights:
        return "frozen"
    active_steps = {tuple(plan.active_steps(v.name)) for v in weights}
    if len(weights) != trainable_count or len(active_steps) > 1:
        return "partly"
    intervals = active_steps.pop()
    if intervals == (Interval(),):
        return "train"
    return ", ".join(map(_steps_text, intervals))


def _merge_runs(rows: Sequence[_Row]) -> list[_Row]:
    merged: list[list[_Row]] = []
    for row in rows:
        if merged and merged[-1][-1][1] == row[1]:
            merged[-1].append(row)
        else:
            merged.append([row])
    return [_merge(run) for run in merged]


def _merge(run: Sequence[_Row]) -> _Row:
    if len(run) == 1:
        return run[0]
    modes = sorted({row[5] for row in run if row[5]})
    return (
        f"{run[0][0]} ... {run[-1][0]} ({len(run)} groups)",
        run[0][1],
        sum(row[2] for row in run),
        sum(row[3] for row in run),
        sum(row[4] for row in run),
        "/".join(modes),
    )


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Returns rows as text with aligned columns. Args: left: the numbers of the left-aligned columns."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    align = [str.ljust if i in left else str.rjust for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [align[i](cell, width) for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
