"""RunSpec: everything that decides what a run does."""

from __future__ import annotations

import dataclasses
from typing import Any

from estimator_tl.config.evaluation_spec import EvaluationSpec
from estimator_tl.config.launch_spec import LaunchSpec
from estimator_tl.errors import UserError
from estimator_tl.registry import absolute_paths
from estimator_tl.specs import DATA_RULES

#: The rules of runs whose run.json names no generation.
FIRST_RULES = 1


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What makes two runs the same model; a model_dir can be continued only with equal values (but for the last two).

    The fields are the flags of the same names.
    """

    backbone: str
    tuning: str = "frozen"
    head: str = "classifier"
    optimizer: str = "adam"
    batch_norm: str = "inference"
    backbone_dropout: bool | None = None
    image_size: int | None = None
    input_range: tuple[float, float] | None = None
    pooling: str | None = None
    backbone_signature: str | None = None
    backbone_output_key: str | None = None
    backbone_sha256: str | None = None
    allow_unsafe_deserialization: bool = False

    def __post_init__(self) -> None:
        if not self.backbone:
            raise UserError('no backbone given; use e.g. --backbone="keras.MobileNetV2(alpha=0.35)" or a path.')
        if self.image_size is not None and self.image_size < 1:
            raise UserError(f"image_size {self.image_size} must be at least 1 pixel.")
        if self.input_range is not None:
            low, high = self.input_range
            object.__setattr__(self, "input_range", (low, high))
            if low >= high:
                raise UserError(f"input_range {low:g},{high:g} must rise, e.g. -1,1.")
        object.__setattr__(self, "backbone", absolute_paths(self.backbone))


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Where examples come from.

    Attributes:
      train_data: an image folder.
      eval_data: another one for evaluation; the validation part of `train_data` by default.
      validation_fraction: share of `train_data` kept for validation.
      test_fraction: share of `train_data` never used by ``train``.
      on_bad_example: ``error`` or ``skip``.
      rules: the generation of rules by which files are listed and decoded, see `specs.DATA_RULES`.
    """

    train_data: str
    eval_data: str | None = None
    validation_fraction: float = 0.2
    test_fraction: float = 0.0
    on_bad_example: str = "error"
    rules: int = DATA_RULES

    def __post_init__(self) -> None:
        for field in ("train_data", "eval_data"):
            value = getattr(self, field)
            if value:
                object.__setattr__(self, field, absolute_paths(value))
        if not self.train_data:
            raise UserError("no training data given; use --train_data=FOLDER with one subfolder a class.")


@dataclasses.dataclass(frozen=True)
class TrainingSpec:
    """How long and how fast; may change from one call to the next in the same model_dir."""

    train_steps: int | None = None
    epochs: float | None = None
    batch_size: int = 32
    learning_rate: str | None = None
    seed: int = 0
    deterministic: bool = False
    save_checkpoints_steps: int | None = None
    keep_checkpoint_max: int = 5
    save_summary_steps: int = 100
    warm_start_from: str | None = None
    allow_plan_change: bool = False

    def __post_init__(self) -> None:
        if self.warm_start_from:
            object.__setattr__(self, "warm_start_from", absolute_paths(self.warm_start_from))
        if self.train_steps is not None and self.epochs is not None:
            raise UserError("both train_steps and epochs are given; give one of them.")
        if self.train_steps is None and self.epochs is None:
            object.__setattr__(self, "epochs", 5.0)
        for field in ("train_steps", "epochs", "batch_size", "save_checkpoints_steps", "save_summary_steps"):
            value = getattr(self, field)
            if value is not None and not value > 0:  # NaN is refused as well
                raise UserError(f"{field} {value:g} must be above 0.")
        if self.keep_checkpoint_max < 0:
            raise UserError(f"keep_checkpoint_max {self.keep_checkpoint_max} must be at least 0 (0 keeps all).")

    def total_steps(self, example_count: int) -> int:
        """Returns the global step at which training ends."""
        if self.train_steps is not None:
            return self.train_steps
        assert self.epochs is not None
        return max(1, -int(-self.epochs * example_count // self.batch_size))


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """A whole run."""

    model: ModelSpec
    data: DataSpec
    training: TrainingSpec
    evaluation: EvaluationSpec = dataclasses.field(default_factory=EvaluationSpec)
    launch: LaunchSpec = dataclasses.field(default_factory=LaunchSpec)

    def to_json(self) -> dict[str, Any]:
        """Returns nested plain values, as run.json keeps them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunSpec:
        """Returns the RunSpec that `to_json` described."""
        return cls(
            ModelSpec(**values["model"]),
            DataSpec(**{"rules": FIRST_RULES, **values["data"]}),
            TrainingSpec(**values["training"]),
            EvaluationSpec(**values.get("evaluation", {})),
            LaunchSpec(**values.get("launch", {})),
        )
