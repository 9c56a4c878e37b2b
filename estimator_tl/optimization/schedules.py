"""Learning-rate schedules: pure functions of the global step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.registry import Registry
from estimator_tl.spans import Interval, Span

registry = Registry("learning-rate schedule")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A learning rate, with a linear warm-up from 0 over the first steps.

    Attributes:
      learning_rate: the peak.
      warmup_steps: below this step the rate is learning_rate * (step + 1) / warmup_steps.
    """

    learning_rate: float
    warmup_steps: int = 0

    def __call__(self, step: Any, total_steps: int | None) -> Any:
        """Returns the rate at a step.

        Args:
          step: the global step, an int64 scalar tensor.
          total_steps: the global step at which the run ends, if known.

        Returns:
          A float32 scalar tensor.
        """
        step = tf.cast(step, tf.float32)
        rate = self.after_warmup(tf.maximum(step - self.warmup_steps, 0.0), total_steps)
        if not self.warmup_steps:
            return rate
        warming = self.learning_rate * (step + 1.0) / self.warmup_steps
        return tf.where(step < self.warmup_steps, warming, rate)

    def after_warmup(self, step: Any, total_steps: int | None) -> Any:
        """Returns the rate at a step that is counted from the end of the warm-up (float32 scalar tensors)."""
        return tf.constant(self.learning_rate, tf.float32)


@dataclasses.dataclass(frozen=True)
class Exponential(Schedule):
    """learning_rate * decay_rate ** (step / decay_steps), with integer powers only if staircase is True."""

    decay_steps: int = 1000
    decay_rate: float = 0.9
    staircase: bool = False

    def after_warmup(self, step: Any, total_steps: int | None) -> Any:
        power = step / self.decay_steps
        if self.staircase:
            power = tf.floor(power)
        return self.learning_rate * tf.pow(self.decay_rate, power)


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from learning_rate to final * learning_rate (Loshchilov and Hutter 2017)."""

    steps: int | None = None
    final: float = 0.0

    def after_warmup(self, step: Any, total_steps: int | None) -> Any:
        end = self.steps or total_steps
        if end is None:
            raise UserError("cosine needs to know where it ends; give steps=, or give make_model_fn train_steps=.")
        length = max(end - self.warmup_steps, 1)
        progress = tf.minimum(step / length, 1.0)
        share = 0.5 * (1.0 + tf.cos(math.pi * progress))
        return self.learning_rate * (self.final + (1.0 - self.final) * share)


def _check_schedule(schedule: Schedule) -> Schedule:
    for field in dataclasses.fields(schedule):
        value = getattr(schedule, field.name)
        if value is None or isinstance(value, bool):
            continue
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise UserError(f"{type(schedule).__name__.lower()}: {field.name}={value!r} must be a number of 0 or more.")
    if not schedule.learning_rate > 0:
        raise UserError(f"learning rate {schedule.learning_rate!r} must be above 0; use e.g. 1e-3.")
    if getattr(schedule, "decay_steps", 1) < 1:
        raise UserError("exponential: decay_steps must be at least 1.")
    return schedule


@registry.register()
def constant(learning_rate: float, warmup_steps: int = 0) -> Schedule:
    """The same rate at every step after the warm-up.

    Example:
      >>> optimizer = etl.optimizers.adam(etl.schedules.constant(1e-3, warmup_steps=100))
    """
    return _check_schedule(Schedule(learning_rate, warmup_steps))


@registry.register()
def exponential(
    learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False, warmup_steps: int = 0
) -> Schedule:
    """Returns a rate that is multiplied by `decay_rate` every `decay_steps` steps; see `Exponential`.

    Example:
      >>> optimizer = etl.optimizers.sgd(etl.schedules.exponential(1e-3, decay_steps=1000, decay_rate=0.9))
    """
    return _check_schedule(Exponential(learning_rate, warmup_steps, decay_steps, decay_rate, staircase))


@registry.register()
def cosine(learning_rate: float, steps: int | None = None, warmup_steps: int = 0, final: float = 0.0) -> Schedule:
    """Returns a rate that decays along half a cosine; see `Cosine`.

    Args:
      learning_rate: the rate after the warm-up.
      steps: the global step at which the decay ends; by default the end of the run.
      warmup_steps: the number of steps in which the rate rises from 0.
      final: the rate at the end.

    Example:
      >>> optimizer = etl.optimizers.adam(etl.schedules.cosine(1e-3, steps=5000, warmup_steps=100))
    """
    return _check_schedule(Cosine(learning_rate, warmup_steps, steps, final))


def as_schedule(value: float | str | Schedule) -> Schedule:
    """Returns a schedule from a number, a spec such as ``cosine(1e-3)``, or a schedule.

    Raises:
      UserError: the number is not a valid rate, or the spec is not a valid schedule.
    """
    if isinstance(value, Schedule):
        return value
    try:
        return constant(float(value))
    except (TypeError, ValueError):
        schedule: Schedule = registry.make(str(value))
        return schedule


def phased_rate(schedule: Schedule, spans: Sequence[Span], step: Any, total_steps: int | None) -> Any:
    """Returns the learning rate at a step, a float32 scalar tensor.

    Args:
      schedule: the run's schedule.
      spans: the spans of the plan, in order.
      step: the global step, an int64 scalar tensor.
      total_steps: the global step at which the run ends, if known.
    """
    *earlier, last = spans
    rate = _rate(schedule, last, step, total_steps)
    for span in reversed(earlier):
        rate = tf.where(step < span.end, _rate(schedule, span, step, total_steps), rate)
    return rate


def _rate(schedule: Schedule, span: Span, step: Any, total_steps: int | None) -> Any:
    if span.learning_rate is None and not span.restart:
        rate = schedule(step, total_steps)
    else:
        if span.learning_rate is not None:
            schedule = as_schedule(span.learning_rate)
        rate = schedule(tf.maximum(step - span.start, 0), span.within(Interval(0, total_steps)).length)
    if span.multiplier == 1:
        return rate
    return rate * span.multiplier
