"""A run that may begin: its settings against the data, the source and the run directory."""

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
    """A run that may begin: all that can be wrong with its settings has been looked at, and nothing written.

    Attributes:
      data: the data of training and evaluation.
      source: the backbone.
      plan: what moves, and when.
      before: the global step at which this call begins.
      total: the global step at which it ends.
      every: steps between checkpoints.
      changed_at: the global step at which this call changes the plan; None where it does not.
      train_input: the input_fn of training.
      eval_input: the input_fn of evaluation; None without evaluation.
      model_fn: of all phases.
      model_fn_of_phase: makes the model_fn of one phase from its number.
      record: for run.json.
    """

    data: RunData
    source: Backbone
    plan: VariablePlan
    before: int
    total: int
    every: int
    changed_at: int | None
    train_input: Callable[..., Any]
    eval_input: Callable[..., Any] | None
    model_fn: Callable[..., Any]
    model_fn_of_phase: Callable[[int], Callable[..., Any]]
    record: dict[str, Any]


def prepare(spec: RunSpec, model_dir: str, distribution: Distribution, tells: bool = True) -> Prepared:
    """Looks at all that can be wrong with the settings of a run, and writes nothing.

    Args:
      spec: the settings.
      model_dir: the run directory.
      distribution: of training.
      tells: whether to print what the run begins with; False in all tasks of a cluster but the chief.

    Raises:
      UserError: something is wrong.
    """
    begun = run_dir.read(model_dir) if run_dir.is_run(model_dir) else None
    spec = session.as_begun(spec, begun)
    data = open_data(spec, model_dir, begun)
    source = _open_source(spec, distribution)
    digest = source.digest()
    saved = run_dir.check_continuable(
        model_dir, spec.model, data.labels, digest, plan_change.FIELDS, spec.training.allow_plan_change
    )
    spec = session.with_range(spec, source)
    before, total = latest_step(model_dir), spec.training.total_steps(data.train_count)
    earlier = plan_change.history(saved, spec.model, before)
    plan = plan_change.plan_of(source.structure, spec.model, earlier)
    check_replicas(source, plan, distribution.replicas)
    start = _warm_start(spec, data.labels, digest)
    training = spec.training
    batch_size = distribution.batch_of_replica(training.batch_size)
    train_input = data.train.input_fn(source.input_spec, batch_size, "train", training=True, seed=training.seed)
    make_model_fn = functools.partial(
        session.build_model_fn,
        spec,
        source,
        data.labels,
        total,
        plan,
        show_plan=announcing.shows_plan_once() if tells else announcing.shows_nothing,
        warm_start_from=start,
        recalibrate_on=train_input if spec.model.batch_norm == "recalibrate" else None,
    )
    record = {
        **_record(spec, data.train, digest, max(total, before)),
        "earlier": [item.to_json() for item in earlier],
        "warm_start": start.checkpoint if start else (saved.record.get("warm_start") if saved else None),
    }
    prepared = Prepared(
        data=data,
        source=source,
        plan=plan,
        before=before,
        total=total,
        every=_checkpoint_steps(spec, total, data.train_count, distribution.loop),
        changed_at=before if len(earlier) > len(saved.record.get("earlier", ()) if saved else ()) else None,
        train_input=train_input,
        eval_input=data.evaluation_input(source.input_spec, training.batch_size),
        model_fn=make_model_fn(),
        model_fn_of_phase=lambda phase: make_model_fn(only_phase=phase),
        record=record,
    )
    if start:
        start.check_honoured(model_dir)
    run_dir.check_writable(model_dir)
    if tells:
        if saved:
            session.tell_first_rules(saved, model_dir, source)
        announcing.tell_range(source)
        announcing.tell_data(data.train, model_dir, before, total, start if not before else None)
        announcing.tell_length(data.train_count, training.batch_size, before, total)
    return prepared


def _open_source(spec: RunSpec, distribution: Distribution) -> Backbone:
    source = session.open_backbone(spec.model, spec.data.rules)
    if distribution.on_tpu and isinstance(source.input_spec, TextSpec):
        raise UserError(f"{source.handle} takes strings, which TPUs have not; use another --distribution.")
    return source


def _warm_start(spec: RunSpec, labels: tuple[str, ...], digest: str) -> WarmStart | None:
    """Returns where the run begins, with the head of that run only where it is the same for the same classes."""
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
    theirs, ours = session.range_of(saved), spec.model.input_range
    if theirs and ours and theirs != ours:
        low, high = theirs
        raise UserError(
            f"{path} was trained on images in [{low:g}, {high:g}], but this run feeds [{ours[0]:g}, {ours[1]:g}]; give "
            f"--input_range={low:g},{high:g}."
        )
    return warm_start(path, head=saved.labels == labels and saved.spec.model.head == spec.model.head)


def _checkpoint_steps(spec: RunSpec, total: int, examples: int, lot: int) -> int:
    """By default a checkpoint, and so an evaluation, once an epoch but at most ten times a run, in whole lots."""
    asked = spec.training.save_checkpoints_steps
    if asked and asked % lot:
        raise UserError(
            f"save_checkpoints_steps {asked} is no multiple of iterations_per_loop {lot}, after which a TPU is heard "
            f"of; use e.g. --save_checkpoints_steps={math.ceil(asked / lot) * lot}, or another --iterations_per_loop."
        )
    epoch = math.ceil(examples / spec.training.batch_size)
    return asked or math.ceil(max(epoch, math.ceil(total / _EVALUATIONS)) / lot) * lot


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
