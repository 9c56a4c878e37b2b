"""A run that may begin: its settings against the data, the source and the run directory."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import estimator_tl
from estimator_tl import heads
from estimator_tl.backbones import Backbone
from estimator_tl.compat.versions import installed_versions
from estimator_tl.config import RunSpec
from estimator_tl.errors import UserError, nearest
from estimator_tl.inputs import DataSource, latest_step
from estimator_tl.launch.cluster.strategy import Distribution
from estimator_tl.launch.run import plan_change, run_dir, session
from estimator_tl.model.factory import check_replicas
from estimator_tl.model.warm_start import WarmStart, warm_start
from estimator_tl.specs import TextSpec
from estimator_tl.tuning import VariablePlan

_EVALUATIONS = 10


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run that may begin: all that can be wrong with its settings has been looked at, and nothing written.

    Attributes:
      data: the examples.
      evaluation: the data and its part to evaluate on, if there is one.
      plan: what moves, and when.
      before: the global step at which this call begins.
      total: the one at which it ends.
      every: steps between checkpoints.
      changed_at: the global step at which this call changes the plan; None where it does not.
      model_fn: takes `only_phase` as a keyword.
      record: for run.json.
    """

    data: DataSource
    evaluation: tuple[DataSource, str] | None
    source: Backbone
    plan: VariablePlan
    before: int
    total: int
    every: int
    changed_at: int | None
    train_input: Callable[..., Any]
    model_fn: Callable[..., Any]
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
    data = session.training_data(spec.data, begun.labels if begun else None)
    if begun:
        _check_no_class_is_gone(data, model_dir)
    examples = data.examples("train")
    _check_classes(data, examples.labels)
    evaluation = _evaluation_data(spec, data)
    _check_metric(spec, data.labels)
    source = _open_source(spec, distribution)
    total = spec.training.total_steps(len(examples))
    digest = source.digest()
    saved = run_dir.check_continuable(
        model_dir, spec.model, data.labels, digest, plan_change.FIELDS, spec.training.allow_plan_change
    )
    spec = session.with_range(spec, source)
    before = latest_step(model_dir)
    earlier = plan_change.history(saved, spec.model, before)
    plan = plan_change.plan_of(source.structure, spec.model, earlier)
    check_replicas(source, plan, distribution.replicas)
    start = _warm_start(spec, data.labels, digest)
    train_input = data.input_fn(
        source.input_spec,
        distribution.batch_of_replica(spec.training.batch_size),
        "train",
        training=True,
        seed=spec.training.seed,
    )
    model_fn = functools.partial(
        session.build_model_fn,
        spec,
        source,
        data.labels,
        total,
        plan,
        show_plan=_shows_plan_once() if tells else _shows_nothing,
        warm_start_from=start,
        recalibrate_on=train_input if spec.model.batch_norm == "recalibrate" else None,
    )
    _check_buildable(model_fn, start, model_dir)
    if tells:
        if saved:
            session.tell_first_rules(saved, model_dir, source)
        _tell_range(source)
        _tell(data, model_dir, before, total, start if not before else None)
        _tell_length(len(examples), spec.training.batch_size, before, total)
    known = saved.record if saved else {}
    record = {
        **_record(spec, data, digest, max(total, before)),
        "earlier": [item.to_json() for item in earlier],
        "warm_start": start.checkpoint if start else known.get("warm_start"),
    }
    return Prepared(
        data=data,
        evaluation=evaluation,
        source=source,
        plan=plan,
        before=before,
        total=total,
        every=_checkpoint_steps(spec, total, len(examples), distribution.loop),
        changed_at=before if len(earlier) > len(known.get("earlier", ())) else None,
        train_input=train_input,
        model_fn=model_fn,
        record=record,
    )


def _open_source(spec: RunSpec, distribution: Distribution) -> Backbone:
    source = session.open_backbone(spec.model, spec.data.rules)
    if distribution.on_tpu and isinstance(source.input_spec, TextSpec):
        raise UserError(f"{source.handle} takes strings, which TPUs have not; use another --distribution.")
    return source


def _check_buildable(model_fn: Callable[..., Any], start: WarmStart | None, model_dir: str) -> None:
    model_fn()  # raises what is wrong with the settings
    if start:
        start.check_honoured(model_dir)
    run_dir.check_writable(model_dir)


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


def _tell(data: DataSource, model_dir: str, before: int, total: int, start: WarmStart | None) -> None:
    if data.skipped:
        print(f"skipped {len(data.skipped)} unreadable {data.what}: {', '.join(data.skipped[:5])}", file=sys.stderr)
    if start:
        what = "backbone and head" if start.head else "backbone; the head is new"
        print(f"warm start from {start.checkpoint}: {what}", file=sys.stderr)
    if before >= total:
        print(
            f"{model_dir} is already at step {before} of {total}; raise --train_steps or --epochs to go on.",
            file=sys.stderr,
        )


def _tell_range(source: Backbone) -> None:
    """Says which values images have, where the source itself rescales them."""
    if source.finding is not None and source.finding.text:
        values = source.image_spec.range_text
        print(f"images have values {values}; the backbone itself does {source.finding.text}", file=sys.stderr)


def _shows_plan_once() -> Callable[[str], None]:
    """Returns what prints the plan for the first graph of a call, and its last line, the phase, for further ones."""
    shown: list[str] = []

    def show(text: str) -> None:
        print(text.splitlines()[-1] if shown else text, flush=True)
        shown.append(text)

    return show


def _shows_nothing(text: str) -> None:
    del text


def _tell_length(examples: int, batch_size: int, before: int, total: int) -> None:
    """Says how long an epoch is, which phases are counted in steps of."""
    steps = f"{examples / batch_size:.4g}"
    print(f"{examples} examples to train on, {steps} steps an epoch; from step {before} to {total}")


def _evaluation_data(spec: RunSpec, data: DataSource) -> tuple[DataSource, str] | None:
    """Returns the data and its part to evaluate on; None where the settings name none."""
    if spec.data.eval_data:
        return session.other_data(spec.data.eval_data, data.labels, spec.data.on_bad_example, spec.data.rules), "all"
    if not spec.data.validation_fraction:
        _check_nothing_to_decide(spec)
        return None
    data.examples("validation")  # raises where the part is empty
    return data, "validation"


def _check_nothing_to_decide(spec: RunSpec) -> None:
    rules = spec.evaluation
    asked = {
        "early_stopping_steps": rules.early_stopping_steps,
        "stop_at": rules.stop_at,
        "exporters": rules.exporters,
        "eval_every_steps": rules.eval_every_steps,
        "eval_every_secs": rules.eval_every_secs,
    }
    for name, value in asked.items():
        if value not in (None, ()):
            raise UserError(
                f"{name} follows from evaluations, but there is nothing to evaluate on; give --eval_data, or a "
                "--validation_fraction above 0."
            )


def _check_metric(spec: RunSpec, labels: tuple[str, ...]) -> None:
    rules = spec.evaluation
    decides = rules.early_stopping_steps is not None or rules.stop_at is not None or "best" in rules.exporters
    head = heads.registry.make(spec.model.head).with_labels(labels)
    known = getattr(head, "metric_names", None)  # a head of somebody else may not say
    if decides and known and rules.metric not in known:
        raise UserError(f"no evaluation of this head has a metric {rules.metric!r}; {nearest(rules.metric, known)}")


def _check_classes(data: DataSource, labels: Sequence[int]) -> None:
    present = set(labels)
    for index, name in enumerate(data.labels):
        if index not in present:
            raise UserError(
                f"class {name!r} in {data.root} has no {data.what} left for training after the split; "
                f"add {data.what}, or lower --validation_fraction and --test_fraction."
            )


def _check_no_class_is_gone(data: DataSource, model_dir: str) -> None:
    """Refuses data that lack a class which a run has begun with; its examples would count as none of the others."""
    gone = missing_classes(data)
    if gone:
        more = f" (nor {len(gone) - 1} more)" if len(gone) > 1 else ""
        raise UserError(
            f"{data.root} has no class {gone[0]!r}{more}, which the run in {model_dir} began with; put it back, or use "
            "another --model_dir."
        )


def missing_classes(data: DataSource) -> list[str]:
    """Returns the classes of a run that its data have no example of."""
    present = {label for _, _, label in data.rows()}
    return [name for number, name in enumerate(data.labels) if number not in present]


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
