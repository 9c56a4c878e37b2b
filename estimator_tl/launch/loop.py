"""The parts in which one process trains: a graph for each phase, one schedule over all of them."""

from __future__ import annotations

from collections.abc import Iterator

from estimator_tl.tuning import VariablePlan


def stretches(plan: VariablePlan, before: int, total: int) -> Iterator[tuple[int | None, int]]:
    """Yields what is left to train: a phase's number (None without phases) and the global step where it ends."""
    if not plan.spans:
        if before < total:
            yield None, total
        return
    for number, span in enumerate(plan.spans):
        end = total if span.end is None else min(span.end, total)
        if max(span.start, before) < end:
            yield number, end
