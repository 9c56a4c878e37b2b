"""RunSpec: all settings of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

from estimator_tl.config.evaluation_spec import EvaluationSpec
from estimator_tl.config.launch_spec import LaunchSpec
from estimator_tl.config.setting import MOST, MOST_STEPS, MOST_TIME, check_settings, setting
from estimator_tl.errors import UserError
from estimator_tl.registry import absolute_paths
from estimator_tl.specs import BAD_EXAMPLE_POLICIES, DATA_RULES, POOLINGS
from estimator_tl.structure import BATCH_NORM_MODES

#: The generation of rules of a run whose run.json names none.
FIRST_RULES = 1
_MODEL, _DATA, _TRAINING, _OUTPUT = "Model", "Data", "Training", "Output"
_VALIDATION = 0.2
_EPOCHS = 5.0


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The model of a run: a model_dir can be continued only with the same values, except for the last two.

    Each field is the flag of the same name.
    """

    backbone: str = setting(
        "",
        'Pretrained backbone: a path, a URL, or a call such as "keras.MobileNetV2(alpha=0.35)".',
        _MODEL,
        common=True,
    )
    tuning: str = setting(
        "frozen",
        "What trains besides the head: frozen, full, last_layers(n), from_layer('name'), last_groups(n), "
        "scopes('regex'); linear_probe_then_full(steps), gradual(every), phases(phase(frozen, until=500), full).",
        _MODEL,
        common=True,
    )
    head: str = setting(
        "classifier", 'What is on top of the backbone, e.g. "classifier(hidden_units=[128])".', _MODEL, common=True
    )
    optimizer: str = setting("adam", 'sgd, adam or rmsprop, e.g. "sgd(momentum=0.9)".', _TRAINING, common=True)
    batch_norm: str = setting(
        "inference",
        "Batch-norm statistics of the backbone. inference keeps them; train updates them in the unfrozen part; "
        "recalibrate estimates them on the training data before the first step.",
        _MODEL,
        choices=BATCH_NORM_MODES,
        common=True,
    )
    backbone_dropout: bool | None = setting(
        None,
        "Dropout inside the backbone. The default is off for a frozen backbone, else on if it has dropout.",
        _MODEL,
    )
    image_size: int | None = setting(
        None,
        "Image height and width in pixels, if the backbone does not fix them.",
        _MODEL,
        common=True,
        at_most=65535,
    )
    input_range: tuple[float, float] | None = setting(
        None,
        "Lowest and highest pixel value that the backbone takes, e.g. -1,1. The default is what inspect shows.",
        _MODEL,
        common=True,
    )
    pooling: str | None = setting(
        None, "How outputs with height and width become vectors. The default is avg.", _MODEL, choices=POOLINGS
    )
    backbone_signature: str | None = setting(
        None, "The signature of a SavedModel or TF1 Hub module to use. The default is its call.", _MODEL
    )
    backbone_output_key: str | None = setting(None, "Which of several outputs of the backbone to use.", _MODEL)
    backbone_sha256: str | None = setting(None, "The digest that the backbone must have, as inspect prints it.", _MODEL)
    allow_unsafe_deserialization: bool = setting(
        False, "Load backbones that contain Python code (Lambda layers), or that read and write files.", _MODEL
    )

    def __post_init__(self) -> None:
        if not self.backbone:
            raise UserError('no backbone given; use e.g. --backbone="keras.MobileNetV2(alpha=0.35)" or a path.')
        check_settings(self)
        if self.input_range is not None:
            low, high = self.input_range
            object.__setattr__(self, "input_range", (low, high))
            if low >= high:
                raise UserError(f"input_range {low:g},{high:g} must rise, e.g. -1,1.")
        object.__setattr__(self, "backbone", absolute_paths(self.backbone))


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The data of a run. Each field except the last is the flag of the same name.

    Attributes:
      rules: the generation of rules for listing and decoding files, see `specs.DATA_RULES`.
    """

    train_data: str = setting(
        "",
        "Training data: a folder with one subfolder of images for each class, or a table as "
        "\"csv('PATH', text='body', label='spam')\".",
        _DATA,
        common=True,
    )
    eval_data: str | None = setting(
        None, "Separate data for evaluation. The default is a part of --train_data.", _DATA, common=True
    )
    validation_fraction: float | None = setting(
        None,
        f"Share of --train_data for evaluation. The default is {_VALIDATION}, or 0 with --eval_data.",
        _DATA,
        common=True,
        at_least=0,
        below=1,
    )
    test_fraction: float = setting(
        0.0, "Share of --train_data that is never trained on; see evaluate --split=test.", _DATA, at_least=0, below=1
    )
    on_bad_example: str = setting(
        "error",
        "What to do with files that cannot be read as images.",
        _DATA,
        choices=BAD_EXAMPLE_POLICIES,
        common=True,
    )
    rules: int = DATA_RULES

    def __post_init__(self) -> None:
        for field in ("train_data", "eval_data"):
            value = getattr(self, field)
            if value:
                object.__setattr__(self, field, absolute_paths(value))
        if not self.train_data:
            raise UserError("no training data given; use --train_data=FOLDER with one subfolder for each class.")
        if self.validation_fraction is None:
            object.__setattr__(self, "validation_fraction", 0.0 if self.eval_data else _VALIDATION)
        check_settings(self)


@dataclasses.dataclass(frozen=True)
class TrainingSpec:
    """How a run trains; the values may change between calls with the same model_dir.

    Each field is the flag of the same name.
    """

    train_steps: int | None = setting(
        None,
        "Global step at which training ends.",
        _TRAINING,
        common=True,
        at_most=MOST_STEPS,
        instead_of=("epochs",),
    )
    epochs: float | None = setting(
        None,
        f"Passes over the training data, instead of --train_steps. The default is {_EPOCHS:g}.",
        _TRAINING,
        common=True,
        above=0,
        at_most=MOST_TIME,
        instead_of=("train_steps",),
    )
    batch_size: int = setting(32, "Examples in a step, over all devices.", _TRAINING, common=True)
    learning_rate: str | None = setting(
        None,
        'A number or a schedule, e.g. "cosine(1e-3, warmup_steps=100)". The default comes with the optimizer.',
        _TRAINING,
        common=True,
    )
    seed: int = setting(
        0, "Seed of the example order, the initial head and dropout.", _TRAINING, common=True, at_least=-MOST
    )
    deterministic: bool = setting(
        False, "Use deterministic ops only: slower, but every run gives the same bits.", _TRAINING
    )
    save_checkpoints_steps: int | None = setting(
        None,
        "Steps between checkpoints; each checkpoint is evaluated. The default is an epoch.",
        _OUTPUT,
        common=True,
        at_most=MOST_STEPS,
        instead_of=("save_checkpoints_secs",),
    )
    keep_checkpoint_max: int = setting(5, "How many checkpoints to keep. 0 keeps all.", _OUTPUT, at_least=0)
    save_summary_steps: int = setting(100, "Steps between TensorBoard summaries.", _OUTPUT)
    warm_start_from: str | None = setting(
        None,
        "model_dir of a run with the same backbone. This run starts from it, head included if the classes agree.",
        _TRAINING,
        common=True,
    )
    allow_plan_change: bool = setting(
        False,
        "Let an existing run go on with another --tuning, --optimizer, --batch_norm or --backbone_dropout.",
        _TRAINING,
    )

    def __post_init__(self) -> None:
        if self.warm_start_from:
            object.__setattr__(self, "warm_start_from", absolute_paths(self.warm_start_from))
        if self.train_steps is not None and self.epochs is not None:
            raise UserError("both train_steps and epochs are given; give one of them.")
        if self.train_steps is None and self.epochs is None:
            object.__setattr__(self, "epochs", _EPOCHS)
        check_settings(self)

    def total_steps(self, example_count: int) -> int:
        """Returns the global step at which training ends."""
        if self.train_steps is not None:
            return self.train_steps
        assert self.epochs is not None
        return max(1, -int(-self.epochs * example_count // self.batch_size))


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """All settings of a run."""

    model: ModelSpec
    data: DataSpec
    training: TrainingSpec
    evaluation: EvaluationSpec = dataclasses.field(default_factory=EvaluationSpec)
    launch: LaunchSpec = dataclasses.field(default_factory=LaunchSpec)

    def to_json(self) -> dict[str, Any]:
        """Returns nested plain values for run.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunSpec:
        """Returns the RunSpec from the values of `to_json`."""
        return cls(
            ModelSpec(**values["model"]),
            DataSpec(**{"rules": FIRST_RULES, **values["data"]}),
            TrainingSpec(**values["training"]),
            EvaluationSpec(**values.get("evaluation", {})),
            LaunchSpec(**values.get("launch", {})),
        )
