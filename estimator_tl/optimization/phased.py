"""Learning rates that change with the phases of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.optimization.schedules import Schedule, as_schedule
from estimator_tl.spans import Interval, Span


def phased_rate(schedule: Schedule, spans: Sequence[Span], step: Any, total_steps: int | None) -> Any:
    """Returns the learning rate at a step, a float32 scalar tensor.

    Args:
      schedule: the run's.
      spans: the phases in order; empty for a run without.
      step: the global step, an int64 scalar tensor.
      total_steps: the step at which the run ends, where it is known.
    """
    if not spans:
        return schedule(step, total_steps)
    rate = None
    for span in reversed(spans):
        own = _rate(schedule, span, step, total_steps) * span.multiplier
        rate = own if rate is None else tf.where(step < span.end, own, rate)
    return rate


def _rate(schedule: Schedule, span: Span, step: Any, total_steps: int | None) -> Any:
    if span.learning_rate is None and not span.restart:
        return schedule(step, total_steps)
    used = schedule if span.learning_rate is None else as_schedule(span.learning_rate)
    return used(tf.maximum(step - span.start, 0), span.within(Interval(0, total_steps)).length)
