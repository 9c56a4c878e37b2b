"""Prepares a run: checks its settings against the data, the backbone and the run directory."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from typing import Any

import estimator_tl
from estimator_tl.backbones import Backbone
from estimator_tl.compat.versions import installed_versions
from estimator_tl.config import RunSpec
from estimator_tl.errors import UserError
from estimator_tl.inputs import DataSource, latest_step
from estimator_tl.launch.cluster.strategy import Distribution
from estimator_tl.launch.run import announcing, plan_change, run_dir, session
from estimator_tl.launch.run.run_data import RunData, open_data
from estimator_tl.model.factory import check_replicas
from estimator_tl.model.warm_start import WarmStart, warm_start
from estimator_tl.specs import TextSpec
from estimator_tl.tuning import VariablePlan

_EVALUATIONS = 10


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run that is ready to begin: all its settings are checked, and nothing is written yet.

    Attributes:
      data: the data of training and evaluation.
      backbone: the pretrained backbone.
      plan: which variables train, and when.
      start_step: the global step at which this call begins.
      total: the global step at which this call ends.
      every: steps between checkpoints.
      changed_at: the global step at which this call changes the plan; None if it does not.
      train_input: the input_fn of training.
      eval_input: the input_fn of evaluation; None without evaluation.
      model_fn: the model_fn of all phases.
      model_fn_of_phase: returns the model_fn of one phase, given its number.
      record: the content of run.json.
    """

    data: RunData
    backbone: Backbone
    plan: VariablePlan
    start_step: int
    total: int
    every: int
    changed_at: int | None
    train_input: Callable[..., Any]
    eval_input: Callable[..., Any] | None
    model_fn: Callable[..., Any]
    model_fn_of_phase: Callable[[int], Callable[..., Any]]
    record: dict[str, Any]


def prepare(spec: RunSpec, model_dir: str, distribution: Distribution, verbose: bool = True) -> Prepared:
    """Checks all settings of a run without writing anything.

    Args:
      spec: the settings.
      model_dir: the run directory.
      distribution: how training is distributed.
      verbose: whether to print what the run begins with; in a cluster only the chief does.

    Raises:
      UserError: a setting does not fit the data, the backbone or the run directory.
    """
    existing = run_dir.read(model_dir) if run_dir.is_run(model_dir) else None
    spec = session.with_saved_choices(spec, existing)
    data = open_data(spec, model_dir, existing)
    backbone = _open_backbone(spec, distribution)
    digest = backbone.digest()
    saved = run_dir.check_continuable(
        model_dir, spec.model, data.labels, digest, plan_change.FIELDS, spec.training.allow_plan_change
    )
    spec = session.with_range(spec, backbone)
    start_step, total = latest_step(model_dir), spec.training.total_steps(data.train_count)
    earlier = plan_change.history(saved, spec.model, start_step)
    plan = plan_change.plan_of(backbone.structure, spec.model, earlier)
    check_replicas(backbone, plan, distribution.replicas)
    start = _warm_start(spec, data.labels, digest)
    training = spec.training
    batch_size = distribution.batch_of_replica(training.batch_size)
    train_input = data.train.input_fn(backbone.input_spec, batch_size, "train", training=True, seed=training.seed)
    make_model_fn = functools.partial(
        session.build_model_fn,
        spec,
        backbone,
        data.labels,
        total,
        plan,
        show_plan=announcing.plan_printer() if verbose else announcing.print_nothing,
        warm_start_from=start,
        recalibrate_on=train_input if spec.model.batch_norm == "recalibrate" else None,
    )
    old_record = saved.record if saved else {}
    record = {
        **_record(spec, data.train, digest, max(total, start_step)),
        "earlier": [item.to_json() for item in earlier],
        "warm_start": start.checkpoint if start else old_record.get("warm_start"),
    }
    prepared = Prepared(
        data=data,
        backbone=backbone,
        plan=plan,
        start_step=start_step,
        total=total,
        every=_checkpoint_steps(spec, total, data.train_count, distribution.steps_per_call),
        changed_at=start_step if len(earlier) > len(old_record.get("earlier", ())) else None,
        train_input=train_input,
        eval_input=data.evaluation_input(backbone.input_spec, training.batch_size),
        model_fn=make_model_fn(),
        model_fn_of_phase=lambda phase: make_model_fn(only_phase=phase),
        record=record,
    )
    if start:
        start.check_honoured(model_dir)
    run_dir.check_writable(model_dir)
    if verbose:
        if saved:
            session.print_first_rules(saved, model_dir, backbone)
        _print_beginning(prepared, model_dir, training.batch_size, start if not start_step else None)
    return prepared


def _print_beginning(run: Prepared, model_dir: str, batch_size: int, start: WarmStart | None) -> None:
    """Prints what the run begins with."""
    announcing.print_range(run.backbone)
    announcing.print_data(run.data.train, model_dir, run.start_step, run.total, start)
    announcing.print_length(run.data.train_count, batch_size, run.start_step, run.total)


def _open_backbone(spec: RunSpec, distribution: Distribution) -> Backbone:
    backbone = session.open_backbone(spec.model, spec.data.rules)
    if distribution.on_tpu and isinstance(backbone.input_spec, TextSpec):
        raise UserError(f"{backbone.handle} takes strings, which TPUs do not support; use another --distribution.")
    return backbone


def _warm_start(spec: RunSpec, labels: tuple[str, ...], digest: str) -> WarmStart | None:
    """Returns the start of the run, if --warm_start_from is set; with its head if head and classes are the same."""
    path = spec.training.warm_start_from
    if not path:
        return None
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    if not run_dir.is_run(folder):
        return warm_start(path, head=False)
    saved = run_dir.read(folder)
    if saved.record["backbone_digest"] != digest:
        raise UserError(
            f"{path} is a run of another backbone ({saved.spec.model.backbone}, {saved.record['backbone_digest']}), "
            f"not of {spec.model.backbone} ({digest}); warm-start from a run of the same backbone."
        )
    saved_range, new_range = session.range_of(saved), spec.model.input_range
    if saved_range and new_range and saved_range != new_range:
        low, high = saved_range
        raise UserError(
            f"{path} was trained on images in [{low:g}, {high:g}], but this run feeds "
            f"[{new_range[0]:g}, {new_range[1]:g}]; give --input_range={low:g},{high:g}."
        )
    return warm_start(path, head=saved.labels == labels and saved.spec.model.head == spec.model.head)


def _checkpoint_steps(spec: RunSpec, total: int, examples: int, steps_per_call: int) -> int:
    """Returns the steps between checkpoints: by default an epoch, but at most ten checkpoints in a run.

    The default is a multiple of `steps_per_call`, as a TPU saves only between session calls.
    """
    setting = spec.training.save_checkpoints_steps
    if not setting:
        epoch = math.ceil(examples / spec.training.batch_size)
        return _round_up(max(epoch, math.ceil(total / _EVALUATIONS)), steps_per_call)
    if setting % steps_per_call:
        multiple = _round_up(setting, steps_per_call)
        raise UserError(
            f"save_checkpoints_steps {setting} is not a multiple of iterations_per_loop {steps_per_call}, but a TPU "
            f"saves only between loops; use e.g. --save_checkpoints_steps={multiple}, or another --iterations_per_loop."
        )
    return setting


def _round_up(steps: int, multiple: int) -> int:
    return math.ceil(steps / multiple) * multiple


def _record(spec: RunSpec, data: DataSource, backbone_digest: str, total: int) -> dict[str, Any]:
    return {
        "estimator_tl": estimator_tl.__version__,
        "versions": installed_versions(),
        "settings": spec.to_json(),
        "labels": list(data.labels),
        "total_steps": total,
        "backbone_digest": backbone_digest,
        "data_digest": data.digest(),
        "examples": len(data),
        "skipped": list(data.skipped),
    }
