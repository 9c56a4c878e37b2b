"""EvaluationSpec: when a run is evaluated, and what follows from it."""

from __future__ import annotations

import dataclasses
import math

from estimator_tl.errors import UserError, check_known

EXPORTERS = ("best", "final", "latest")
GOALS = ("auto", "max", "min")
_LOWER_IS_BETTER = ("loss", "error", "perplexity")


@dataclasses.dataclass(frozen=True)
class EvaluationSpec:
    """How a run is evaluated while it trains. The fields are the flags of the same names.

    Attributes:
      metric: which one decides.
      metric_goal: max, min, or auto: min for losses and errors.
      early_stopping_steps: training ends when the metric has not got better for so many steps; None: never.
      stop_at: training ends when the metric is at least as good; None: never.
      exporters: some of `EXPORTERS`.
      exports_to_keep: versions of `best` and `latest`.
      eval_every_steps: between evaluations of what training holds in memory; None: checkpoints are evaluated.
      eval_every_secs: the same, in seconds.
      eval_throttle_secs: at least between the beginnings of two evaluations; the last checkpoint always has one.
      eval_steps: batches of an evaluation; None for all.
    """

    metric: str = "accuracy"
    metric_goal: str = "auto"
    early_stopping_steps: int | None = None
    stop_at: float | None = None
    exporters: tuple[str, ...] = ()
    exports_to_keep: int = 5
    eval_every_steps: int | None = None
    eval_every_secs: float | None = None
    eval_throttle_secs: float = 0.0
    eval_steps: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "exporters", tuple(self.exporters))
        for name in self.exporters:
            check_known("exporter", name, EXPORTERS)
        check_known("metric_goal", self.metric_goal, GOALS)
        for field in ("early_stopping_steps", "exports_to_keep", "eval_every_steps", "eval_every_secs", "eval_steps"):
            value = getattr(self, field)
            if value is not None and not value > 0:  # NaN is refused as well
                raise UserError(f"{field} {value:g} must be above 0.")
        if self.stop_at is not None and not math.isfinite(self.stop_at):
            raise UserError(f"stop_at {self.stop_at} must be a finite number.")
        if not self.eval_throttle_secs >= 0:
            raise UserError(f"eval_throttle_secs {self.eval_throttle_secs:g} must be at least 0.")
        for name in self.exporters:
            if self.in_memory and name != "final":
                raise UserError(
                    f"exporter {name} exports checkpoints as they are evaluated, which eval_every_steps and "
                    "eval_every_secs do without; leave it or them out."
                )

    @property
    def in_memory(self) -> bool:
        """Whether a training session is evaluated in place of its checkpoints."""
        return self.eval_every_steps is not None or self.eval_every_secs is not None

    @property
    def sign(self) -> float:
        """1 where higher values of the metric are better, else -1."""
        if self.metric_goal != "auto":
            return 1.0 if self.metric_goal == "max" else -1.0
        return -1.0 if any(word in self.metric for word in _LOWER_IS_BETTER) else 1.0
