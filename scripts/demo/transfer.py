"""Transfer strategies, and one training and evaluation of one of them."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pictures

import estimator_tl as etl
from estimator_tl.backbones import Backbone
from estimator_tl.inputs import ImageFolder
from estimator_tl.tuning import Policy

PER_CLASS = 10
_BATCH = 25
_EVALUATION_BATCH = 1000
_NEVER = 1_000_000


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A way to come to a classifier from a few pictures.

    Attributes:
      name: for people.
      tuning: what trains, besides the head.
      learning_rate: the peak of a cosine.
      steps: of training.
      batch_norm: see `etl.make_model_fn`.
      pretrained: whether the network comes with pretrained weights.
    """

    name: str
    tuning: Policy
    learning_rate: float
    steps: int = 200
    batch_norm: str = "inference"
    pretrained: bool = True


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained and evaluated Estimator.

    Attributes:
      seed: of the pictures, the head and the order.
      parameters: how many were trained.
      accuracy: on all pictures that were not trained on.
      seconds: for training and evaluation.
      estimator: with its checkpoint.
      test: the pictures of the evaluation.
    """

    seed: int
    parameters: int
    accuracy: float
    seconds: float
    estimator: Any
    test: ImageFolder


def strategies() -> list[Strategy]:
    """Returns what the demo compares.

    Each learning rate is the best that was found for its strategy, or as good as that, on seeds from 100 on, which
    the table does not show by default. From scratch has twice the steps, so that it cannot lack training.
    """
    return [
        Strategy("from scratch", etl.tuning.full(), 1e-2, steps=400, batch_norm="train", pretrained=False),
        Strategy("frozen", etl.tuning.frozen(), 1e-2),
        Strategy("last groups", etl.tuning.last_groups(4), 3e-3),
        Strategy("full", etl.tuning.full(), 3e-3, batch_norm="train"),
    ]


def run(strategy: Strategy, backbone: Backbone, folder: ImageFolder, seed: int, model_dir: Path) -> Run:
    """Trains on a few pictures of a folder and evaluates on all others."""
    train, test = pictures.few_and_rest(folder, PER_CLASS, seed)
    spec = backbone.image_spec
    model_fn = etl.make_model_fn(
        backbone,
        etl.heads.classifier(labels=folder.labels),
        tuning=strategy.tuning,
        optimizer=etl.optimizers.adam(etl.schedules.cosine(strategy.learning_rate)),
        batch_norm=strategy.batch_norm,
        train_steps=strategy.steps,
    )
    config = etl.estimator.RunConfig(
        tf_random_seed=seed,
        save_checkpoints_steps=_NEVER,  # but for the one at the end
        save_summary_steps=_NEVER,
        log_step_count_steps=_NEVER,
    )
    started = time.monotonic()
    estimator = etl.estimator.Estimator(model_fn, str(model_dir), config)
    estimator.train(train.input_fn(spec, _BATCH, training=True, seed=seed), max_steps=strategy.steps)
    metrics = estimator.evaluate(test.input_fn(spec, _EVALUATION_BATCH))
    seconds = time.monotonic() - started
    parameters = _trained_parameters(strategy, backbone, estimator)
    return Run(seed, parameters, float(metrics["accuracy"]), seconds, estimator, test)


def _trained_parameters(strategy: Strategy, backbone: Backbone, estimator: Any) -> int:
    plan = etl.tuning.make_plan(backbone.structure, strategy.tuning, strategy.batch_norm)
    head = sum(estimator.get_variable_value(f"head/logits/{name}").size for name in ("kernel", "bias"))
    return head + sum(variable.size for variable in plan.structure.variables if variable.name in plan.trainable)
