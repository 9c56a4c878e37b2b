"""EvaluationSpec: when a run is evaluated, when it stops early, and what it exports."""

from __future__ import annotations

import dataclasses

from estimator_tl.config.setting import MOST_STEPS, MOST_TIME, check_settings, setting
from estimator_tl.errors import UserError, check_known
from estimator_tl.metric_names import lower_is_better

EXPORTERS = ("best", "final", "latest")
GOALS = ("auto", "max", "min")
_GROUP = "Evaluation"


@dataclasses.dataclass(frozen=True)
class EvaluationSpec:
    """How a run is evaluated during training. Each field is the flag of the same name."""

    metric: str = setting("accuracy", "The metric that picks the best export and stops training.", _GROUP, common=True)
    metric_goal: str = setting(
        "auto", "Whether higher (max) or lower (min) is better. auto: min for losses and errors.", _GROUP, choices=GOALS
    )
    early_stopping_steps: int | None = setting(
        None,
        "Stop training when the metric has not improved for N steps.",
        _GROUP,
        common=True,
        at_most=MOST_STEPS,
    )
    stop_at: float | None = setting(None, "Stop training when the metric is at least as good as this.", _GROUP)
    exporters: tuple[str, ...] = setting(
        (), f"Export during training, under MODEL_DIR/export: some of {','.join(EXPORTERS)}.", _GROUP, common=True
    )
    exports_to_keep: int = setting(5, "How many versions the exporters `best` and `latest` keep.", _GROUP)
    eval_every_steps: int | None = setting(
        None, "Evaluate in memory every N steps instead of at each checkpoint.", _GROUP, at_most=MOST_STEPS
    )
    eval_every_secs: float | None = setting(
        None, "Evaluate in memory every N seconds instead of at each checkpoint.", _GROUP, above=0, at_most=MOST_TIME
    )
    eval_throttle_secs: float = setting(
        0.0,
        "Seconds between the starts of two evaluations, at least. The last checkpoint is always evaluated.",
        _GROUP,
        at_least=0,
        at_most=MOST_TIME,
    )
    eval_steps: int | None = setting(None, "How many batches an evaluation takes. The default is all.", _GROUP)

    def __post_init__(self) -> None:
        object.__setattr__(self, "exporters", tuple(self.exporters))
        for name in self.exporters:
            check_known("exporter", name, EXPORTERS)
        check_settings(self)
        for name in self.exporters:
            if self.in_memory and name != "final":
                raise UserError(
                    f"exporter {name} exports evaluated checkpoints, but eval_every_steps and eval_every_secs evaluate "
                    "without checkpoints; leave out one of them."
                )

    @property
    def in_memory(self) -> bool:
        """Whether evaluations read the training session instead of checkpoints."""
        return self.eval_every_steps is not None or self.eval_every_secs is not None

    @property
    def sign(self) -> float:
        """1 where higher values of the metric are better, else -1."""
        is_min = self.metric_goal == "min" or (self.metric_goal == "auto" and lower_is_better(self.metric))
        return -1.0 if is_min else 1.0
