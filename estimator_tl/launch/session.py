"""A run opened for work: its data, model_fn and Estimator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from estimator_tl import backbones, heads, inputs
from estimator_tl.backbones import Backbone
from estimator_tl.compat import estimator
from estimator_tl.config import DataSpec, ModelSpec, RunSpec, TrainingSpec
from estimator_tl.inputs import DataSource
from estimator_tl.launch import plan_change, run_dir
from estimator_tl.launch.run_config import described
from estimator_tl.model_fn import make_model_fn
from estimator_tl.optimization import optimizers
from estimator_tl.tuning import VariablePlan


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A saved run with its model ready to evaluate, predict or export.

    Attributes:
      saved: what its directory says.
      backbone: its source.
      estimator: restores from the run's checkpoints.
    """

    saved: run_dir.SavedRun
    backbone: Backbone
    estimator: Any


def open_backbone(model: ModelSpec) -> Backbone:
    """Opens the source that the settings name."""
    return backbones.backbone(
        model.backbone,
        sha256=model.backbone_sha256,
        allow_unsafe_deserialization=model.allow_unsafe_deserialization,
        image_size=model.image_size,
        pooling=model.pooling,
        input_range=model.input_range,
        signature=model.backbone_signature,
        output_key=model.backbone_output_key,
    )


def open_run(model_dir: str) -> OpenRun:
    """Opens the run in a directory.

    Raises:
      UserError: there is none, or its source is gone.
    """
    saved = run_dir.read(model_dir)
    run_dir.latest_checkpoint(model_dir)
    source = open_backbone(saved.spec.model)
    function = build_model_fn(saved.spec, source, saved.labels, None)
    config = local_config(model_dir, saved.spec.training)
    return OpenRun(saved, source, estimator.Estimator(function, model_dir, config, params={}))


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


def training_data(data: DataSpec) -> DataSource:
    """Lists the training data with its split."""
    return inputs.open_source(
        data.train_data,
        validation=data.validation_fraction,
        test=data.test_fraction,
        on_bad_example=data.on_bad_example,
    )


def other_data(path: str, labels: tuple[str, ...], on_bad_example: str) -> DataSource:
    """Lists data of which the classes are already known."""
    return inputs.open_source(path, labels=labels, on_bad_example=on_bad_example)
