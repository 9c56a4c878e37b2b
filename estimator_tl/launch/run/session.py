"""A run opened for work: its data, model_fn and Estimator."""

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


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A saved run with its model ready to evaluate, predict or export.

    Attributes:
      saved: what its directory says.
      backbone: its source.
      estimator: restores from the run's checkpoints.
      checkpoint: the newest whole one, which every call of the Estimator is to be given.
    """

    saved: run_dir.SavedRun
    backbone: Backbone
    estimator: Any
    checkpoint: str

    def evaluate(self, input_fn: Callable[[], Any]) -> dict[str, Any]:
        """Returns the metrics of the checkpoint, ``global_step`` among them.

        Raises:
          UserError: the values are damaged, or those of another step.
        """
        with disk_errors(self.estimator.model_dir):
            metrics: dict[str, Any] = self.estimator.evaluate(input_fn, checkpoint_path=self.checkpoint)
        check_step(metrics, self.checkpoint)
        return metrics

    def predict(self, input_fn: Callable[[], Any], keys: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yields the predictions of the checkpoint, one for each example, in order.

        Args:
          input_fn: of the examples.
          keys: of the predictions; all by default.

        Raises:
          UserError: the values are damaged.
        """
        with disk_errors(self.estimator.model_dir):
            yield from self.estimator.predict(input_fn, keys, checkpoint_path=self.checkpoint)


def open_backbone(model: ModelSpec, rules: int = DATA_RULES) -> Backbone:
    """Opens the source that the settings name.

    Args:
      model: the settings.
      rules: the generation of rules for images, see `specs.DATA_RULES`.
    """
    source = _opened(model, _first_range(model) if rules == FIRST_RULES else model.input_range)
    if isinstance(source.input_spec, ImageSpec):
        source.input_spec = dataclasses.replace(source.input_spec, rules=rules)
    return source


def _opened(model: ModelSpec, input_range: tuple[float, float] | None) -> Backbone:
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
        return _opened(model, model.input_range)


def _first_range(model: ModelSpec) -> tuple[float, float] | None:
    """Returns the range of images in runs that began when the source itself was not asked for it."""
    name = model.backbone.strip().partition("(")[0]
    if model.input_range is not None or not backbones.takes_range(model.backbone):
        return model.input_range
    if not name.startswith("keras."):
        return (0.0, 1.0)
    call = parse_call(model.backbone)
    return None if call.kwargs.get("include_preprocessing", True) else (0.0, 255.0)


def range_of(saved: run_dir.SavedRun) -> tuple[float, float] | None:
    """Returns the range of images that a run was trained on; None where it is not linear, or the run takes text."""
    model = saved.spec.model
    return _first_range(model) if saved.spec.data.rules == FIRST_RULES else model.input_range


def open_run(model_dir: str) -> OpenRun:
    """Opens the run in a directory.

    Raises:
      UserError: there is none, or its source is gone.
    """
    saved = run_dir.read(model_dir)
    checkpoint = run_dir.latest_checkpoint(model_dir).path
    source = open_backbone(saved.spec.model, saved.spec.data.rules)
    tell_first_rules(saved, model_dir, source)
    saved = as_trained(saved, source)
    function = build_model_fn(saved.spec, source, saved.labels, None)
    config = local_config(model_dir, saved.spec.training)
    return OpenRun(saved, source, estimator.Estimator(function, model_dir, config, params={}), checkpoint)


def as_begun(spec: RunSpec, saved: run_dir.SavedRun | None) -> RunSpec:
    """Returns the settings of a call with what the run decided when it began: its rules for data, its input range.

    Args:
      spec: the settings of this call.
      saved: the run that goes on; None for a new one.
    """
    if saved is None:
        return spec
    data = dataclasses.replace(spec.data, rules=saved.spec.data.rules)
    model, begun = spec.model, saved.spec.model
    if model.input_range is None and model.backbone == begun.backbone:
        model = dataclasses.replace(model, input_range=begun.input_range)
    return dataclasses.replace(spec, model=model, data=data)


def with_range(spec: RunSpec, source: Backbone) -> RunSpec:
    """Returns the settings with the range that the source takes, so that the run keeps it."""
    if not isinstance(source.input_spec, ImageSpec) or not backbones.takes_range(spec.model.backbone):
        return spec
    if source.input_spec.range is None:
        return spec
    return dataclasses.replace(spec, model=dataclasses.replace(spec.model, input_range=source.input_spec.range))


def as_trained(saved: run_dir.SavedRun, source: Backbone) -> run_dir.SavedRun:
    """Returns a run with its settings as they took effect.

    Runs of the first generation accepted batch norm in training mode for a source that was saved for inference only.
    Its statistics never moved, so the mode was inference; new runs are refused.
    """
    spec = saved.spec
    if spec.data.rules != FIRST_RULES or not source.structure.inference_only or spec.model.batch_norm != "train":
        return saved
    model = dataclasses.replace(spec.model, batch_norm="inference")
    return dataclasses.replace(saved, spec=dataclasses.replace(spec, model=model))


def tell_first_rules(saved: run_dir.SavedRun, model_dir: str, source: Backbone) -> None:
    """Says that a run of the first generation keeps its rules."""
    if saved.spec.data.rules != FIRST_RULES:
        return
    rules = "tables are read and split as they were then"
    if isinstance(source.input_spec, ImageSpec):
        rules = "image orientation and transparency are ignored, nested folders left out"
    if as_trained(saved, source) != saved:
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
    """Returns the model_fn that the settings describe.

    Args:
      spec: the settings.
      source: the backbone that they name.
      labels: the classes.
      train_steps: where training ends, if it is known.
      plan: from `plan_change.plan_of`; the settings' own, without a past, by default.
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
    """Returns the arguments of a RunConfig that a run's settings of training say."""
    return {
        "tf_random_seed": training.seed,
        "save_checkpoints_steps": save_checkpoints_steps or training.save_checkpoints_steps or 1000,
        "keep_checkpoint_max": training.keep_checkpoint_max,
        "save_summary_steps": training.save_summary_steps,
        "log_step_count_steps": training.save_summary_steps,
    }


def local_config(model_dir: str, training: TrainingSpec, session_config: Any = None) -> Any:
    """Returns the RunConfig of one process by itself, whatever cluster it may be in."""
    with described(None):
        return estimator.RunConfig(model_dir=model_dir, session_config=session_config, **config_fields(training))


def training_data(data: DataSpec, labels: tuple[str, ...] | None = None) -> DataSource:
    """Lists the training data with its split.

    Args:
      data: the settings.
      labels: the classes of the run, in order; None where it is new.

    Raises:
      UserError: the data are not in order, or hold a class that the run does not know.
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
    """Lists data of which the classes are already known.

    Raises:
      UserError: the data are not in order, or hold a class that is none of these.
    """
    return _with_labels(path, labels, {"on_bad_example": on_bad_example, "rules": rules})


def _with_labels(path: str, labels: tuple[str, ...], settings: dict[str, Any]) -> DataSource:
    try:
        return inputs.open_source(path, labels=labels, **settings)
    except UserError:
        strangers = sorted(set(_classes(path, settings)) - set(labels))
        if not strangers:
            raise
        more = and_more(len(strangers) - 1)
        raise UserError(
            f"{path} holds the class {strangers[0]!r}{more}, which the run does not know; rename it or take it out "
            f"of the data, or train a new run with it; {nearest(strangers[0], labels)}"
        ) from None


def _classes(path: str, settings: dict[str, Any]) -> tuple[str, ...]:
    """Returns the classes that data hold by themselves; none where they are not in order for another reason."""
    try:
        return inputs.open_source(path, **settings).labels
    except UserError:
        return ()
