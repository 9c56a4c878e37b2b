"""The factory that joins backbone, tuning, head and optimizer to a standard model_fn."""

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
from estimator_tl.model.recalibration import recalibrate
from estimator_tl.model.warm_start import WarmStart, store_fingerprint, warm_start
from estimator_tl.optimization import foreign, optimizers
from estimator_tl.optimization.schedules import Schedule
from estimator_tl.optimization.training import train_op
from estimator_tl.spans import Interval, Span
from estimator_tl.specs import ImageSpec, TextSpec
from estimator_tl.tf_internals import tpu
from estimator_tl.tf_internals.devices import check_devices
from estimator_tl.tf_internals.graphs.recording import recorded
from estimator_tl.tf_internals.graphs.replicas import save_from_first_replica
from estimator_tl.tf_internals.graphs.scaffolds import assigning_scaffold
from estimator_tl.tuning import Policy, VariablePlan, collections, frozen, make_plan
from estimator_tl.tuning.hooks import FitsCheckpointHook, FrozenCheckHook, PlanHook
from estimator_tl.tuning.table import phase_line, plan_table
from estimator_tl.types import EstimatorSpec, RunConfig, Tensor, Variable


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

    The model_fn takes ``features``: a tensor, or a dict with ``image`` (float32 [batch, height, width, channels] in
    the range of `backbone.image_spec`) or ``text`` (string [batch]), whichever the backbone takes, and optionally
    ``weight`` ([batch]). Its ``labels`` are int [batch]. Its ``params`` may hold ``learning_rate``, which then replaces
    the argument.

    Args:
      backbone: from `etl.backbone`.
      head: from `etl.heads`.
      tuning: from `etl.tuning`; frozen by default. A `VariablePlan` also sets batch norm and dropout.
      optimizer: from `etl.optimizers`, adam by default; or a `tf.compat.v1.train.Optimizer`, a legacy Keras
        optimizer, or a function that returns one of these.
      learning_rate: a number or a schedule that replaces the optimizer's own.
      batch_norm: ``inference``; ``train``, for the unfrozen part of the backbone; or ``recalibrate``: the
        statistics are estimated on `recalibrate_on` before the first step, and then stay.
      backbone_dropout: see `etl.tuning.make_plan`.
      train_steps: the global step where training ends, for schedules that need it.
      show_plan: called with the plan's text when training begins; by default the text is logged.
      recalibrate_on: an input_fn; at most 100 of its batches are used.
      warm_start_from: a model_dir or checkpoint of a run with the same backbone, to begin training with its values.
      warm_start_head: whether to take the values of its head as well; False for a new head.
      only_phase: the number, from 0, of the one phase that this model_fn trains. A step then costs only what the
        policy of this phase costs. The caller must end training where the phase ends.

    Raises:
      UserError: the backbone does not allow the tuning, batch norm or dropout.

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
    rule = foreign.as_optimizer(optimizer or optimizers.adam())
    if learning_rate is not None:
        rule = rule.with_learning_rate(learning_rate)
    rule.check(plan.spans)
    head.check(backbone.feature_rank)  # here, and not only when the first graph is built
    if isinstance(warm_start_from, str):
        warm_start_from = warm_start(warm_start_from, warm_start_head)
    if warm_start_from:
        warm_start_from.check(backbone.structure)
    if recalibrate_on is not None and plan.batch_norm != "recalibrate":
        raise UserError("recalibrate_on is given; give batch_norm='recalibrate' as well, or leave it out.")
    values = _InitialValues(backbone, plan, warm_start_from, recalibrate_on)
    show = show_plan or (lambda text: logging.info("%s", text))
    model = _Model(backbone, head, plan, rule, values, show, train_steps, only_phase)

    def model_fn(features: Tensor, labels: Tensor, mode: str, params: Any = None, config: Any = None) -> Any:
        # Under MirroredStrategy AutoGraph would convert everything that is called here, which costs time for nothing.
        make_spec = tf.autograph.experimental.do_not_convert(model.spec)
        return make_spec(features, labels, mode, params or {}, config)

    return model_fn


@dataclasses.dataclass(frozen=True)
class _Model:
    """Builds the graphs of one model_fn; see `make_model_fn` for the fields."""

    backbone: Backbone
    head: Classifier
    plan: VariablePlan
    optimizer: optimizers.Optimizer | foreign.ForeignOptimizer
    values: _InitialValues
    show: Callable[[str], None]
    train_steps: int | None
    only_phase: int | None

    def spec(
        self, features: Tensor, labels: Tensor, mode: str, params: Mapping[str, Any], config: RunConfig
    ) -> EstimatorSpec:
        """Builds the graph of a mode; returns its EstimatorSpec, or its TPUEstimatorSpec on a TPU."""
        key, training = self.backbone.input_spec.key, mode == estimator.ModeKeys.TRAIN
        columns, cores = _as_columns(features, key), tpu.cores_of(params)
        if cores and isinstance(self.backbone.input_spec, TextSpec):
            raise UserError(f"{self.backbone.handle} takes strings, which TPUs do not support; use a CPU or GPU.")
        if training and tf.distribute.has_strategy():
            check_devices(tf.distribute.get_strategy(), getattr(config, "session_config", None))
            check_replicas(self.backbone, self.plan, tf.distribute.get_strategy().num_replicas_in_sync)
        with tpu.collecting_scalars(on_tpu=cores is not None) as scalars:
            network = self.backbone.build(columns[key], self.plan.call_mode(training))
            for name in self.plan.frozen:
                save_from_first_replica(network.variables[name])
            with recorded() as record:
                logits = self.head.logits(network.features, training)
            head_variables = record.variables
            trainable = collections.publish(self.plan, network.variables, head_variables)
            rate = params.get("learning_rate")
            spec = self.head.estimator_spec(
                features=columns,
                mode=mode,
                logits=logits,
                labels=labels,
                train_op_fn=lambda loss: self._train_op(loss, network, trainable, rate, cores or 1),
                regularization_losses=_regularization(self.plan, network),
                embedding=network.features,
                **({"on_tpu": True} if cores else {}),  # a user's head need not have this argument
            )
        hooks = [] if cores else self._input_hooks(columns[key], mode, config)
        if training:
            hooks = [*self._training_hooks(network, head_variables, config), *hooks]
            self.values.check(getattr(config, "model_dir", None))
            spec = spec._replace(training_hooks=(*(spec.training_hooks or ()), *hooks))
        elif hooks:
            spec = spec._replace(evaluation_hooks=(*(spec.evaluation_hooks or ()), *hooks))
        scaffold = self.values.scaffold(network, head_variables)
        if cores:
            return tpu.complete_spec(spec, scaffold, scalars, getattr(config, "model_dir", None))
        return spec._replace(scaffold=scaffold or spec.scaffold)

    def _train_op(self, loss: Tensor, network: BuiltBackbone, trainable: Sequence[Any], rate: Any, cores: int) -> Any:
        optimizer = self.optimizer if rate is None else self.optimizer.with_learning_rate(rate)
        only = None
        if len(self._graph_spans) == 1:
            resting = {id(network.variables[name]) for name in self._resting_names}
            only = [variable for variable in trainable if id(variable) not in resting]
        steps = {network.variables[name].op.name: self.plan.active_steps(name) for name in self.plan.trainable}
        gated = {name: intervals for name, intervals in steps.items() if intervals != [Interval()]}
        return train_op(
            optimizer, loss, trainable, network.updates, self.train_steps, self.plan.spans, gated, only, cores
        )

    @property
    def _graph_spans(self) -> Sequence[Span]:
        """The spans that a training graph serves. If it is only one, every step moves the same variables."""
        return self.plan.spans if self.only_phase is None else [self.plan.spans[self.only_phase]]

    @property
    def _resting_names(self) -> frozenset[str]:
        """Names of the trainable variables of the plan that a training graph does not move."""
        return self.plan.trainable.difference(*(span.trainable for span in self._graph_spans))

    def _training_hooks(
        self, network: BuiltBackbone, head_variables: Sequence[Variable], config: RunConfig
    ) -> list[Any]:
        sizes = {variable.op.name: variable.shape.num_elements() for variable in head_variables}
        phase = "" if self.only_phase is None else phase_line(self.plan, self.only_phase, sizes)
        resting = (*self.plan.frozen, *sorted(self._resting_names))
        model_dir = getattr(config, "model_dir", None)
        return [
            *([FitsCheckpointHook(model_dir, config.is_chief)] if model_dir else []),
            PlanHook(plan_table(self.plan, sizes), self.show, self.plan.dropout and self.backbone.is_random, phase),
            FrozenCheckHook({name: network.variables[name] for name in resting}),
        ]

    def _input_hooks(self, inputs: Tensor, mode: str, config: RunConfig) -> list[Any]:
        """Returns the hooks that check the batches of an input_fn."""
        if mode == estimator.ModeKeys.PREDICT:
            return []
        hooks: list[Any] = [AnyBatchHook()] if mode == estimator.ModeKeys.EVAL else []
        spec, backbone = self.backbone.input_spec, self.backbone
        if isinstance(spec, ImageSpec) and getattr(config, "is_chief", True):
            hooks.append(ImageRangeHook(backbone.handle, spec, inputs, getattr(config, "model_dir", None)))
        return hooks


@dataclasses.dataclass(frozen=True)
class _InitialValues:
    """The values that the variables of a run begin with, where they are not the values of the initializers."""

    backbone: Backbone
    plan: VariablePlan
    start: WarmStart | None
    recalibrate_on: Callable[[], Any] | None

    def check(self, model_dir: str | None) -> None:
        """Checks, in a training graph, that the run will really begin with these values."""
        if self.plan.batch_norm == "recalibrate" and self.recalibrate_on is None:
            raise UserError("batch_norm='recalibrate' needs data; give recalibrate_on, an input_fn.")
        if self.start:
            if model_dir:
                self.start.check_honoured(model_dir)
            store_fingerprint(self.start)

    def scaffold(self, network: BuiltBackbone, head_variables: Sequence[Variable]) -> Any:
        """Returns a Scaffold that assigns the values if no checkpoint is restored; None without such values."""
        head = {variable.op.name: variable for variable in head_variables}
        if not (self.start or self.recalibrate_on or network.initial_values):
            return None

        def read() -> Mapping[str, Any]:
            values: dict[str, Any] = dict(network.initial_values()) if network.initial_values else {}
            if self.start:
                values = self.start.values(self.backbone.structure, head)
            if self.recalibrate_on:
                values.update(recalibrate(self.backbone, self._inputs, values))
            return values

        return assigning_scaffold(network.variables, read, head)

    def _inputs(self) -> Any:
        assert self.recalibrate_on is not None
        key = self.backbone.input_spec.key
        data = self.recalibrate_on()
        if not hasattr(data, "element_spec"):
            features = data[0] if isinstance(data, tuple) else data
            return _as_columns(features, key)[key]
        return data.map(lambda features, *labels: _as_columns(features, key)[key])


def check_replicas(backbone: Backbone, plan: VariablePlan, replicas: int) -> None:
    """Checks that a backbone can be trained by several synchronous replicas.

    Raises:
      UserError: the plan trains variables that are not float32, or the backbone can only be trained on one device.
    """
    if replicas < 2:
        return
    dtypes = {v.dtype for v in backbone.structure.variables if v.name in plan.trainable}
    other_dtypes = sorted(dtypes - {"float32"})
    if other_dtypes:
        raise UserError(
            f"{backbone.handle} trains {', '.join(other_dtypes)} variables: TensorFlow cannot sum their gradients over "
            f"{replicas} replicas together with the head's, which are float32; train on one device, or freeze them."
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


def _as_columns(features: Tensor, key: str) -> Mapping[str, Any]:
    if not isinstance(features, Mapping):
        return {key: features}
    if key not in features:
        raise UserError(f"the features {sorted(features)} hold no {key!r}; give the tensor for the backbone this name.")
    return features


def _regularization(plan: VariablePlan, network: BuiltBackbone) -> list[Any]:
    """Returns the regularization losses that training can lower: the losses of frozen variables are constants."""
    if plan.frozen_whole:
        return []
    return [loss for name, loss in network.regularization_losses if name is None or name in plan.trainable]
