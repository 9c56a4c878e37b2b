"""The one factory: backbone + tuning + head + optimizer -> a standard model_fn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from estimator_tl.backbones import Backbone, BuiltBackbone
from estimator_tl.backbones.input.hooks import AnyBatchHook, ImageRangeHook
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from estimator_tl.heads import Classifier
from estimator_tl.model.recalibration import recalibrated
from estimator_tl.model.warm_start import WarmStart, mark_graph, warm_start
from estimator_tl.optimization import foreign, optimizers
from estimator_tl.optimization.schedules import Schedule
from estimator_tl.optimization.training import train_op
from estimator_tl.spans import Interval, Span
from estimator_tl.specs import ImageSpec, TextSpec
from estimator_tl.tf_internals import tpu
from estimator_tl.tf_internals.devices import check_devices
from estimator_tl.tf_internals.graphs.recording import recorded
from estimator_tl.tf_internals.graphs.replicas import keep_as_it_is
from estimator_tl.tf_internals.graphs.scaffolds import assigning_scaffold
from estimator_tl.tuning import Policy, VariablePlan, collections, frozen, make_plan
from estimator_tl.tuning.hooks import FitsCheckpointHook, FrozenCheckHook, PlanHook
from estimator_tl.tuning.table import phase_line, plan_table


def make_model_fn(
    backbone: Backbone,
    head: Classifier,
    tuning: Policy | VariablePlan | None = None,
    optimizer: Any = None,
    learning_rate: float | str | Schedule | None = None,
    batch_norm: str = "inference",
    backbone_dropout: bool | None = None,
    train_steps: int | None = None,
    show_plan: Callable[[str], None] | None = None,
    recalibrate_on: Callable[[], Any] | None = None,
    warm_start_from: str | WarmStart | None = None,
    warm_start_head: bool = True,
    only_phase: int | None = None,
) -> Callable[..., Any]:
    """Returns a model_fn for any Estimator, with or without this project's launcher.

    The model_fn takes ``features``: a bare tensor, or a dict with ``image``
    (float32 [batch, height, width, channels] in the range of
    `backbone.image_spec`) or ``text`` (string [batch]), whichever the source
    takes, and optionally ``weight`` ([batch]); ``labels``: int [batch]. Its
    ``params`` may hold ``learning_rate``, which then wins.

    Args:
      backbone: from `etl.backbone`.
      head: from `etl.heads`.
      tuning: from `etl.tuning`; frozen by default. A `VariablePlan` brings its own batch norm and dropout.
      optimizer: from `etl.optimizers`, adam by default; or a `tf.compat.v1.train.Optimizer`, a legacy Keras
        optimizer, or a function that returns one of these.
      learning_rate: a number or a schedule, in place of the optimizer's own.
      batch_norm: ``inference``; ``train``, for the unfrozen part of the backbone; or ``recalibrate``: its
        statistics are estimated on `recalibrate_on` before the first step, and stay.
      backbone_dropout: see `etl.tuning.make_plan`.
      train_steps: the global step where training ends, for schedules that need it.
      show_plan: takes the plan's text when training begins; logged by default.
      recalibrate_on: an input_fn; at most 100 of its batches are used.
      warm_start_from: a model_dir or checkpoint of a run with the same backbone, where training begins.
      warm_start_head: whether its head is used as well; False for a new one.
      only_phase: number, from 0, of the one phase that the graphs for training serve. They then cost what its policy
        costs, and the caller ends training where the phase ends.

    Raises:
      UserError: tuning, batch norm or dropout do not fit the source.

    Example:
      >>> model_fn = etl.make_model_fn(
      ...     backbone=backbone,
      ...     head=etl.heads.classifier(labels=data.labels),
      ...     tuning=etl.tuning.last_groups(2),
      ...     optimizer=etl.optimizers.adam(1e-3),
      ... )
      >>> estimator = etl.estimator.Estimator(model_fn, "runs/last_groups", params={})
      >>> estimator = estimator.train(data.input_fn(backbone.image_spec, 4, "train", training=True), steps=2)
    """
    if isinstance(tuning, VariablePlan):
        plan = tuning
    else:
        plan = make_plan(backbone.structure, tuning or frozen(), batch_norm, backbone_dropout)
    _check_phases_begin(plan, train_steps)
    chosen = foreign.as_optimizer(optimizer or optimizers.adam())
    if learning_rate is not None:
        chosen = chosen.with_learning_rate(learning_rate)
    chosen.check(plan.spans)
    head.check(backbone.feature_rank)  # now rather than inside the first graph
    start = warm_start(warm_start_from, warm_start_head) if isinstance(warm_start_from, str) else warm_start_from
    if start:
        start.check(backbone.structure)
    if recalibrate_on is not None and plan.batch_norm != "recalibrate":
        raise UserError("recalibrate_on is given; give batch_norm='recalibrate' as well, or leave it out.")
    values = _InitialValues(backbone, plan, start, recalibrate_on)
    show = show_plan or (lambda text: logging.info("%s", text))
    model = _Model(backbone, head, plan, chosen, values, show, train_steps, only_phase)

    def model_fn(features: Any, labels: Any, mode: str, params: Any = None, config: Any = None) -> Any:
        # Under MirroredStrategy AutoGraph would convert all that is called here, for nothing and at some cost.
        plainly = tf.autograph.experimental.do_not_convert(model.spec)
        return plainly(features, labels, mode, params or {}, config)

    return model_fn


@dataclasses.dataclass(frozen=True)
class _Model:
    """What trains in the graphs of one model_fn; see `make_model_fn` for the fields."""

    backbone: Backbone
    head: Classifier
    plan: VariablePlan
    optimizer: optimizers.Optimizer | foreign.ForeignOptimizer
    values: _InitialValues
    show: Callable[[str], None]
    train_steps: int | None
    only_phase: int | None

    def spec(self, features: Any, labels: Any, mode: str, params: Mapping[str, Any], config: Any) -> Any:
        """Builds the graph of a mode; returns its EstimatorSpec, or TPUEstimatorSpec where it is for a TPU."""
        key, training = self.backbone.input_spec.key, mode == estimator.ModeKeys.TRAIN
        columns, cores = _as_columns(features, key), tpu.cores_of(params)
        if cores and isinstance(self.backbone.input_spec, TextSpec):
            raise UserError(f"{self.backbone.handle} takes strings, which TPUs have not; train it elsewhere.")
        if training and tf.distribute.has_strategy():
            check_devices(tf.distribute.get_strategy(), getattr(config, "session_config", None))
            check_replicas(self.backbone, self.plan, tf.distribute.get_strategy().num_replicas_in_sync)
        with tpu.kept_scalars(on_tpu=cores is not None) as scalars:
            built = self.backbone.build(columns[key], self.plan.call_mode(training))
            for name in self.plan.frozen:
                keep_as_it_is(built.variables[name])
            with recorded() as made:
                logits = self.head.logits(built.features, training)
            head_variables = made.variables
            trained = collections.publish(self.plan, built.variables, head_variables)
            spec = self.head.estimator_spec(
                features=columns,
                mode=mode,
                logits=logits,
                labels=labels,
                train_op_fn=lambda loss: self._train_op(loss, built, trained, params.get("learning_rate"), cores or 1),
                regularization_losses=_regularization(self.plan, built),
                embedding=built.features,
                **({"on_tpu": True} if cores else {}),  # heads of others may know no TPU
            )
        hooks = [] if cores else self._input_hooks(columns[key], mode, config)
        if training:
            hooks = [*self._training_hooks(built, head_variables, config), *hooks]
            self.values.check(getattr(config, "model_dir", None))
            spec = spec._replace(training_hooks=(*(spec.training_hooks or ()), *hooks))
        elif hooks:
            spec = spec._replace(evaluation_hooks=(*(spec.evaluation_hooks or ()), *hooks))
        scaffold = self.values.scaffold(built, head_variables)
        if not cores:
            return spec._replace(scaffold=scaffold or spec.scaffold)
        if training:
            step = tf.compat.v1.train.get_global_step()
            spec = spec._replace(host_call=tpu.host_call(scalars, getattr(config, "model_dir", None), step))
        return spec._replace(scaffold_fn=(lambda: scaffold) if scaffold else None)

    def _train_op(self, loss: Any, built: BuiltBackbone, trained: Sequence[Any], rate: Any, cores: int) -> Any:
        optimizer = self.optimizer if rate is None else self.optimizer.with_learning_rate(rate)
        resting = {id(built.variables[name]) for name in self._resting}
        only = [variable for variable in trained if id(variable) not in resting] if len(self._served) == 1 else None
        steps = {built.variables[name].op.name: self.plan.active_steps(name) for name in self.plan.trainable}
        gated = {name: intervals for name, intervals in steps.items() if intervals != [Interval()]}
        return train_op(optimizer, loss, trained, built.updates, self.train_steps, self.plan.spans, gated, only, cores)

    @property
    def _served(self) -> Sequence[Span]:
        """The spans whose steps the graphs for training make; where it is one, each step moves the same variables."""
        return self.plan.spans if self.only_phase is None else [self.plan.spans[self.only_phase]]

    @property
    def _resting(self) -> frozenset[str]:
        """Names of the plan's variables that the graphs for training leave alone."""
        return self.plan.trainable.difference(*(span.trainable for span in self._served))

    def _training_hooks(self, built: BuiltBackbone, head_variables: Sequence[Any], config: Any) -> list[Any]:
        sizes = {variable.op.name: variable.shape.num_elements() for variable in head_variables}
        phase = "" if self.only_phase is None else phase_line(self.plan, self.only_phase, sizes)
        model_dir = getattr(config, "model_dir", None)
        return [
            *([FitsCheckpointHook(model_dir, config.is_chief)] if model_dir else []),
            PlanHook(plan_table(self.plan, sizes), self.show, self.plan.dropout and self.backbone.is_random, phase),
            FrozenCheckHook({name: built.variables[name] for name in (*self.plan.frozen, *sorted(self._resting))}),
        ]

    def _input_hooks(self, inputs: Any, mode: str, config: Any) -> list[Any]:
        """Returns the hooks that look at what an input_fn gives."""
        if mode == estimator.ModeKeys.PREDICT:
            return []
        hooks: list[Any] = [AnyBatchHook()] if mode == estimator.ModeKeys.EVAL else []
        spec, backbone = self.backbone.input_spec, self.backbone
        if isinstance(spec, ImageSpec) and getattr(config, "is_chief", True):
            hooks.append(ImageRangeHook(backbone.handle, spec, inputs, getattr(config, "model_dir", None)))
        return hooks


@dataclasses.dataclass(frozen=True)
class _InitialValues:
    """Where the variables of a run begin, if not with what their initializers give."""

    backbone: Backbone
    plan: VariablePlan
    start: WarmStart | None
    recalibrate_on: Callable[[], Any] | None

    def check(self, model_dir: str | None) -> None:
        """Checks, in a graph for training, that the values will be what was asked for."""
        if self.plan.batch_norm == "recalibrate" and self.recalibrate_on is None:
            raise UserError("batch_norm='recalibrate' needs data; give recalibrate_on, an input_fn.")
        if self.start:
            if model_dir:
                self.start.check_honoured(model_dir)
            mark_graph(self.start)

    def scaffold(self, built: BuiltBackbone, head_variables: Sequence[Any]) -> Any:
        """Returns the Scaffold that assigns them where no checkpoint is restored; None where there is nothing to."""
        head = {variable.op.name: variable for variable in head_variables}
        if not (self.start or self.recalibrate_on or built.initial_values):
            return None

        def read() -> Mapping[str, Any]:
            values: dict[str, Any] = dict(built.initial_values()) if built.initial_values else {}
            if self.start:
                values = self.start.values(self.backbone.structure, head)
            if self.recalibrate_on:
                values.update(recalibrated(self.backbone, self._inputs, values))
            return values

        return assigning_scaffold(built.variables, read, head)

    def _inputs(self) -> Any:
        assert self.recalibrate_on is not None
        key = self.backbone.input_spec.key
        data = self.recalibrate_on()
        if not hasattr(data, "element_spec"):
            return _as_columns(data[0] if isinstance(data, tuple) else data, key)[key]
        return data.map(lambda features, *labels: _as_columns(features, key)[key])


def check_replicas(backbone: Backbone, plan: VariablePlan, replicas: int) -> None:
    """Checks that a source can be trained by several replicas that step together.

    Raises:
      UserError: it cannot.
    """
    if replicas < 2:
        return
    trained = [v.dtype for v in backbone.structure.variables if v.name in plan.trainable]
    others = sorted(set(trained) - {"float32"})
    if others:
        raise UserError(
            f"{backbone.handle} trains {', '.join(others)} variables, whose gradients TensorFlow does not sum over "
            f"{replicas} replicas beside the float32 ones of the head; train on one device, or freeze them."
        )
    if backbone.one_device:
        raise UserError(f"{backbone.handle} {backbone.one_device}; train on one device.")


def _check_phases_begin(plan: VariablePlan, train_steps: int | None) -> None:
    late = [span for span in plan.spans[1:] if not span.overlaps(Interval(0, train_steps))]
    if late:
        raise UserError(
            f"{plan.policy}: {late[0].phase} would begin at step {late[0].start}, but training ends at step "
            f"{train_steps}; train longer, or begin it earlier."
        )


def _as_columns(features: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(features, Mapping):
        return {key: features}
    if key not in features:
        raise UserError(f"the features {sorted(features)} hold no {key!r}; name the tensor that the source takes so.")
    return features


def _regularization(plan: VariablePlan, built: BuiltBackbone) -> list[Any]:
    """Keeps the losses that training can lower; those of frozen variables are constants."""
    if plan.frozen_whole:
        return []
    return [loss for name, loss in built.regularization_losses if name is None or name in plan.trainable]
