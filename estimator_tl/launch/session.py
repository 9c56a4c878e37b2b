"""A run opened for work: its data, model_fn and Estimator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from estimator_tl import backbones, heads, inputs, tuning
from estimator_tl.backbones import Backbone
from estimator_tl.compat import estimator
from estimator_tl.config import DataSpec, ModelSpec, RunSpec, TrainingSpec
from estimator_tl.inputs import ImageFolder
from estimator_tl.launch import run_dir
from estimator_tl.model_fn import make_model_fn
from estimator_tl.optimization import optimizers


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
        model.backbone, image_size=model.image_size, pooling=model.pooling, input_range=model.input_range
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
    config = run_config(model_dir, saved.spec.training)
    return OpenRun(saved, source, estimator.Estimator(function, model_dir, config, params={}))


def build_model_fn(
    spec: RunSpec,
    source: Backbone,
    labels: tuple[str, ...],
    train_steps: int | None,
    show_plan: Callable[[str], None] | None = None,
) -> Callable[..., Any]:
    """Returns the model_fn that the settings describe."""
    model = spec.model
    return make_model_fn(
        backbone=source,
        head=heads.registry.make(model.head).with_labels(labels),
        tuning=tuning.registry.make(model.tuning),
        optimizer=optimizers.registry.make(model.optimizer),
        learning_rate=spec.training.learning_rate,
        batch_norm=model.batch_norm,
        backbone_dropout=model.backbone_dropout,
        train_steps=train_steps,
        show_plan=show_plan,
    )


def run_config(model_dir: str, training: TrainingSpec, save_checkpoints_steps: int | None = None) -> Any:
    """Returns the RunConfig of one local process."""
    return estimator.RunConfig(
        model_dir=model_dir,
        tf_random_seed=training.seed,
        save_checkpoints_steps=save_checkpoints_steps or training.save_checkpoints_steps or 1000,
        keep_checkpoint_max=training.keep_checkpoint_max,
        save_summary_steps=training.save_summary_steps,
        log_step_count_steps=training.save_summary_steps,
    )


def training_data(data: DataSpec) -> ImageFolder:
    """Lists the training folder with its split."""
    return inputs.image_folder(
        data.train_data,
        validation=data.validation_fraction,
        test=data.test_fraction,
        on_bad_example=data.on_bad_example,
    )


def other_data(path: str, labels: tuple[str, ...], on_bad_example: str) -> ImageFolder:
    """Lists a folder of which the classes are already known."""
    return inputs.image_folder(path, labels=labels, on_bad_example=on_bad_example)
