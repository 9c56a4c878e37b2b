"""The plan for people: a table by group and the one-line summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from estimator_tl.spans import Interval
from estimator_tl.structure import SourceVariable
from estimator_tl.tuning.plan import VariablePlan

_MOST_ROWS = 40


def plan_table(plan: VariablePlan, head_sizes: Mapping[str, int] | None = None) -> str:
    """Returns the plan as text: a row a group, and the summary below.

    Runs of neighbouring groups in the same state share a row where the table
    would be long.

    Args:
      plan: the plan.
      head_sizes: number of parameters by head variable, where they are known.
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
    lines = [
        f"tuning {plan.policy}, batch norm {_batch_norm(plan)}, backbone dropout {'on' if plan.dropout else 'off'}",
        text_table(header, cells, left=(0, 1, 5)),
        *(f"note: {note}" for note in plan.structure.notes),
    ]
    phases = [phase_line(plan, number, head_sizes) for number in range(len(plan.spans))]
    return "\n".join([*lines, *filter(None, phases), summary(plan, head_sizes)])


def _batch_norm(plan: VariablePlan) -> str:
    moves = any(plan.may_change(v) for v in plan.structure.variables if not v.trainable)
    nothing = plan.batch_norm == "train" and not moves
    return f"{plan.batch_norm} (of no layer: nothing that is trained has any)" if nothing else plan.batch_norm


def phase_line(plan: VariablePlan, number: int, head_sizes: Mapping[str, int] | None = None) -> str:
    """Returns a phase, counted from 0, as a line: its steps, its policy and what it trains.

    The line is empty where the policy has no phases: the table has said it all.
    """
    span = plan.spans[number]
    if not span.phase:
        return ""
    head = sum((head_sizes or {}).values())
    trained = head + sum(v.size for v in plan.structure.variables if v.name in span.trainable)
    rate = "" if span.learning_rate is None else f", learning rate {span.learning_rate}"
    rate += "" if span.multiplier == 1 else f", learning rate times {span.multiplier:g}"
    rate += ", schedule begun anew" if span.restart else ""
    return f"phase {number + 1}, {_in_words(span)}: {span.policy}, trains {trained:,}{rate}"


def _in_words(steps: Interval) -> str:
    return f"from step {steps.start}" if steps.end is None else f"steps {steps.start} to {steps.end - 1}"


def summary(plan: VariablePlan, head_sizes: Mapping[str, int] | None = None) -> str:
    """Returns ``trainable params: 6,405 || all params: 2,264,389 || trainable%: 0.2829``."""
    head = sum((head_sizes or {}).values())
    trained = sum(v.size for v in plan.structure.variables if v.name in plan.trainable) + head
    total = sum(v.size for v in plan.structure.variables) + head
    return f"trainable params: {trained:,} || all params: {total:,} || trainable%: {100 * trained / total:.4f}"


_Row = tuple[str, str, int, int, int, str]


def _row(plan: VariablePlan, name: str, variables: Sequence[SourceVariable]) -> _Row:
    trained = [v for v in variables if v.name in plan.trainable]
    statistics = [v for v in variables if v.name not in plan.trainable and plan.may_change(v)]
    can_train = sum(v.trainable for v in variables)
    state = "frozen" if not trained else _train_state(plan, trained) if len(trained) == can_train else "partly"
    batch_norm = "train" if statistics else "inference" if any(v.batch_norm for v in variables) else ""
    return name, state, len(variables), sum(v.size for v in trained), sum(v.size for v in variables), batch_norm


def _train_state(plan: VariablePlan, trained: Sequence[SourceVariable]) -> str:
    when = {tuple(plan.active_steps(v.name)) for v in trained}
    if len(when) > 1:
        return "partly"
    intervals = when.pop()
    return "train" if intervals == (Interval(),) else ", ".join(map(_in_words, intervals))


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
    """Returns columns as wide as they must be. Args: left: the numbers of those set to the left."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
