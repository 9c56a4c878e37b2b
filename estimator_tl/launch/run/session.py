"""Opens saved runs, and makes the data, model_fn and Estimator of a run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from estimator_tl import backbones, heads, inputs
from estimator_tl.backbones import Backbone
from estimator_tl.compat import estimator
from estimator_tl.config import FIRST_RULES, DataSpec, ModelSpec, RunSpec, TrainingSpec
from estimator_tl.errors import UserError, and_more, nearest
from estimator_tl.inputs import DataSource
from estimator_tl.launch.cluster.run_config import described
from estimator_tl.launch.evaluating.evaluation import check_step
from estimator_tl.launch.run import plan_change, run_dir
from estimator_tl.launch.run.disk import disk_errors
from estimator_tl.model.factory import make_model_fn
from estimator_tl.optimization import optimizers
from estimator_tl.registry import parse_call
from estimator_tl.specs import DATA_RULES, ImageSpec
from estimator_tl.tuning import VariablePlan
from estimator_tl.types import Estimator


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A saved run that is ready to evaluate, predict or export.

    Attributes:
      saved: the content of the run directory.
      backbone: the backbone of the run.
      estimator: an Estimator in the run directory.
      checkpoint: the newest whole checkpoint; pass it to every call of the Estimator.
    """

    saved: run_dir.SavedRun
    backbone: Backbone
    estimator: Estimator
    checkpoint: str

    def evaluate(self, input_fn: Callable[[], Any]) -> dict[str, Any]:
        """Returns the metrics of the checkpoint, with ``global_step``.

        Raises:
          UserError: the checkpoint is damaged, or the metrics belong to another step.
        """
        with disk_errors(self.estimator.model_dir):
            metrics: dict[str, Any] = self.estimator.evaluate(input_fn, checkpoint_path=self.checkpoint)
        check_step(metrics, self.checkpoint)
        return metrics

    def predict(self, input_fn: Callable[[], Any], keys: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yields the predictions of the checkpoint, one for each example, in order.

        Args:
          input_fn: gives the examples.
          keys: the keys to predict; all by default.

        Raises:
          UserError: the checkpoint is damaged.
        """
        with disk_errors(self.estimator.model_dir):
            yield from self.estimator.predict(input_fn, keys, checkpoint_path=self.checkpoint)


def open_backbone(model: ModelSpec, rules: int = DATA_RULES) -> Backbone:
    """Opens the backbone of the settings.

    Args:
      model: the settings.
      rules: the generation of rules for images, see `specs.DATA_RULES`.
    """
    backbone = _open_with_range(model, _range_under(model, rules))
    if isinstance(backbone.input_spec, ImageSpec):
        backbone.input_spec = dataclasses.replace(backbone.input_spec, rules=rules)
    return backbone


def _open_with_range(model: ModelSpec, input_range: tuple[float, float] | None) -> Backbone:
    try:
        return backbones.backbone(
            model.backbone,
            sha256=model.backbone_sha256,
            allow_unsafe_deserialization=model.allow_unsafe_deserialization,
            image_size=model.image_size,
            pooling=model.pooling,
            input_range=input_range,
            signature=model.backbone_signature,
            output_key=model.backbone_output_key,
        )
    except backbones.TakesTextError:
        if input_range == model.input_range:
            raise
        return _open_with_range(model, model.input_range)


def _range_under(model: ModelSpec, rules: int) -> tuple[float, float] | None:
    """Returns the range of images in a run that began under a generation of rules."""
    return _first_range(model) if rules == FIRST_RULES else model.input_range


def _first_range(model: ModelSpec) -> tuple[float, float] | None:
    """Returns the range of images under the first rules, which did not derive it from the backbone."""
    name = model.backbone.strip().partition("(")[0]
    if model.input_range is not None or not backbones.takes_range(model.backbone):
        return model.input_range
    if not name.startswith("keras."):
        return (0.0, 1.0)
    call = parse_call(model.backbone)
    return None if call.kwargs.get("include_preprocessing", True) else (0.0, 255.0)


def range_of(saved: run_dir.SavedRun) -> tuple[float, float] | None:
    """Returns the range of images that a run was trained on; None if it is not linear, or the run takes text."""
    return _range_under(saved.spec.model, saved.spec.data.rules)


def open_run(model_dir: str) -> OpenRun:
    """Opens the run in a directory.

    Raises:
      UserError: the directory holds no run or no checkpoint, or the backbone cannot be opened.
    """
    saved = run_dir.read(model_dir)
    checkpoint = run_dir.latest_checkpoint(model_dir).path
    backbone = open_backbone(saved.spec.model, saved.spec.data.rules)
    print_first_rules(saved, model_dir, backbone)
    saved = with_effective_settings(saved, backbone)
    function = build_model_fn(saved.spec, backbone, saved.labels, None)
    config = local_config(model_dir, saved.spec.training)
    return OpenRun(saved, backbone, estimator.Estimator(function, model_dir, config, params={}), checkpoint)


def with_saved_choices(spec: RunSpec, saved: run_dir.SavedRun | None) -> RunSpec:
    """Returns the settings of a call with the rules for data and the input range that the run began with.

    Args:
      spec: the settings of this call.
      saved: the existing run; None for a new run.
    """
    if saved is None:
        return spec
    data = dataclasses.replace(spec.data, rules=saved.spec.data.rules)
    model, saved_model = spec.model, saved.spec.model
    if model.input_range is None and model.backbone == saved_model.backbone:
        model = dataclasses.replace(model, input_range=saved_model.input_range)
    return dataclasses.replace(spec, model=model, data=data)


def with_range(spec: RunSpec, backbone: Backbone) -> RunSpec:
    """Returns the settings with the input range of the backbone, so that the run stores it."""
    if not isinstance(backbone.input_spec, ImageSpec) or not backbones.takes_range(spec.model.backbone):
        return spec
    if backbone.input_spec.range is None:
        return spec
    return dataclasses.replace(spec, model=dataclasses.replace(spec.model, input_range=backbone.input_spec.range))


def with_effective_settings(saved: run_dir.SavedRun, backbone: Backbone) -> run_dir.SavedRun:
    """Returns a run with the settings that took effect.

    Runs under the first rules accepted batch norm in training mode for a backbone that was saved for inference only.
    Its statistics never changed, so the mode was inference. New runs refuse this setting.
    """
    spec = saved.spec
    if spec.data.rules != FIRST_RULES or not backbone.structure.inference_only or spec.model.batch_norm != "train":
        return saved
    model = dataclasses.replace(spec.model, batch_norm="inference")
    return dataclasses.replace(saved, spec=dataclasses.replace(spec, model=model))


def print_first_rules(saved: run_dir.SavedRun, model_dir: str, backbone: Backbone) -> None:
    """Prints that a run under the first rules keeps them."""
    if saved.spec.data.rules != FIRST_RULES:
        return
    rules = "tables are read and split as they were then"
    if isinstance(backbone.input_spec, ImageSpec):
        rules = "image orientation and transparency are ignored, nested folders left out"
    if with_effective_settings(saved, backbone) != saved:
        rules += "; batch norm stayed in inference mode, as the backbone was saved for inference only"
    print(
        f"{model_dir} began under earlier rules and keeps them: {rules}; train into another --model_dir for today's.",
        file=sys.stderr,
    )


def build_model_fn(
    spec: RunSpec,
    source: Backbone,
    labels: tuple[str, ...],
    train_steps: int | None,
    plan: VariablePlan | None = None,
    **options: Any,
) -> Callable[..., Any]:
    """Returns the model_fn for the settings.

    Args:
      spec: the settings.
      source: the backbone of the settings.
      labels: the classes.
      train_steps: the global step where training ends, if it is known.
      plan: the plan, from `plan_change.plan_of`; by default the plan of the settings without earlier ones.
      **options: see `make_model_fn`.
    """
    model = spec.model
    return make_model_fn(
        backbone=source,
        head=heads.registry.make(model.head).with_labels(labels),
        tuning=plan or plan_change.plan_of(source.structure, model),
        optimizer=optimizers.registry.make(model.optimizer),
        learning_rate=spec.training.learning_rate,
        train_steps=train_steps,
        **options,
    )


def config_fields(training: TrainingSpec, save_checkpoints_steps: int | None = None) -> dict[str, Any]:
    """Returns the arguments of RunConfig for the training settings."""
    return {
        "tf_random_seed": training.seed,
        "save_checkpoints_steps": save_checkpoints_steps or training.save_checkpoints_steps or 1000,
        "keep_checkpoint_max": training.keep_checkpoint_max,
        "save_summary_steps": training.save_summary_steps,
        "log_step_count_steps": training.save_summary_steps,
    }


def local_config(model_dir: str, training: TrainingSpec, session_config: Any = None) -> Any:
    """Returns a RunConfig without a cluster, even if TF_CONFIG describes one."""
    with described(None):
        return estimator.RunConfig(model_dir=model_dir, session_config=session_config, **config_fields(training))


def training_data(data: DataSpec, labels: tuple[str, ...] | None = None) -> DataSource:
    """Opens the training data with its splits.

    Args:
      data: the settings.
      labels: the classes of the run, in order; None for a new run.

    Raises:
      UserError: the data are invalid, or hold a class that the run does not have.
    """
    settings = {
        "validation": data.validation_fraction,
        "test": data.test_fraction,
        "on_bad_example": data.on_bad_example,
        "rules": data.rules,
    }
    if labels is None:
        return inputs.open_source(data.train_data, **settings)
    return _with_labels(data.train_data, labels, settings)


def other_data(path: str, labels: tuple[str, ...], on_bad_example: str, rules: int = DATA_RULES) -> DataSource:
    """Opens data with the classes of a run.

    Raises:
      UserError: the data are invalid, or hold a class that the run does not have.
    """
    return _with_labels(path, labels, {"on_bad_example": on_bad_example, "rules": rules})


def _with_labels(path: str, labels: tuple[str, ...], settings: dict[str, Any]) -> DataSource:
    try:
        return inputs.open_source(path, labels=labels, **settings)
    except UserError:
        unknown = sorted(set(_classes(path, settings)) - set(labels))
        if not unknown:
            raise
        more = and_more(len(unknown) - 1)
        raise UserError(
            f"{path} holds the class {unknown[0]!r}{more}, which the run does not know; rename it or take it out "
            f"of the data, or train a new run with it; {nearest(unknown[0], labels)}"
        ) from None


def _classes(path: str, settings: dict[str, Any]) -> tuple[str, ...]:
    """Returns all classes in the data; empty if the data are invalid for another reason."""
    try:
        return inputs.open_source(path, **settings).labels
    except UserError:
        return ()
