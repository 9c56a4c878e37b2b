"""The one factory: backbone + tuning + head + optimizer -> a standard model_fn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from absl import logging

from estimator_tl.backbones import Backbone, BuiltBackbone
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from estimator_tl.heads import Classifier
from estimator_tl.optimization import optimizers
from estimator_tl.optimization.phased import RateSpan
from estimator_tl.optimization.schedules import Schedule
from estimator_tl.tuning import Policy, VariablePlan, collections, frozen, make_plan
from estimator_tl.tuning.hooks import FrozenCheckHook, PlanHook
from estimator_tl.tuning.table import plan_table

IMAGE_KEY = "image"
_ASSIGN_BYTES = 32 << 20


def make_model_fn(
    backbone: Backbone,
    head: Classifier,
    tuning: Policy | None = None,
    optimizer: optimizers.Optimizer | None = None,
    learning_rate: float | str | Schedule | None = None,
    batch_norm: str = "inference",
    backbone_dropout: bool | None = None,
    train_steps: int | None = None,
    show_plan: Callable[[str], None] | None = None,
) -> Callable[..., Any]:
    """Returns a model_fn for any Estimator, with or without this project's launcher.

    The model_fn takes ``features``: the picture tensor, or a dict with ``image``
    (float32 [batch, height, width, channels] in the range of
    `backbone.image_spec`) and optionally ``weight`` ([batch]); ``labels``: int
    [batch]. Its ``params`` may hold ``learning_rate``, which then wins.

    Args:
      backbone: from `etl.backbone`.
      head: from `etl.heads`.
      tuning: from `etl.tuning`; frozen by default.
      optimizer: from `etl.optimizers`; adam by default.
      learning_rate: a number or a schedule, in place of the optimizer's own.
      batch_norm: ``inference`` or ``train``, for the unfrozen part of the backbone.
      backbone_dropout: see `etl.tuning.make_plan`.
      train_steps: the global step where training ends, for schedules that need it.
      show_plan: takes the plan's text when training begins; logged by default.

    Raises:
      UserError: tuning, batch norm or dropout do not fit the source.
    """
    plan = make_plan(backbone.structure, tuning or frozen(), batch_norm, backbone_dropout)
    _check_phases_begin(plan, train_steps)
    chosen = optimizer or optimizers.adam()
    if learning_rate is not None:
        chosen = chosen.with_learning_rate(learning_rate)
    head.check(backbone.feature_rank)  # now rather than inside the first graph
    show = show_plan or (lambda text: logging.info("%s", text))

    def model_fn(features: Any, labels: Any, mode: str, params: Any = None, config: Any = None) -> Any:
        del config  # part of the signature that Estimator calls
        columns = _as_columns(features)
        training = mode == estimator.ModeKeys.TRAIN
        built = backbone.build(columns[IMAGE_KEY], plan.call_mode(training))
        with _recorded_variables() as head_variables:
            logits = head.logits(built.features, training)
        trained = collections.publish(plan, built.variables, head_variables)

        def train_op_fn(loss: Any) -> Any:
            rate = (params or {}).get("learning_rate")
            used = chosen if rate is None else chosen.with_learning_rate(rate)
            steps = _gated_steps(plan, built)
            return optimizers.train_op(used, loss, trained, built.updates, train_steps, _rate_spans(plan), steps)

        spec = head.estimator_spec(
            features=columns,
            mode=mode,
            logits=logits,
            labels=labels,
            train_op_fn=train_op_fn,
            regularization_losses=_regularization(plan, built),
            embedding=built.features,
        )
        hooks = _training_hooks(plan, built, head_variables, show) if training else ()
        return spec._replace(
            scaffold=_scaffold(built) or spec.scaffold, training_hooks=(*(spec.training_hooks or ()), *hooks)
        )

    return model_fn


def _check_phases_begin(plan: VariablePlan, train_steps: int | None) -> None:
    late = [span for span in plan.spans if train_steps is not None and span.start >= train_steps]
    if late:
        raise UserError(
            f"{plan.policy}: {late[0].phase} would begin at step {late[0].start}, but training ends at step "
            f"{train_steps}; train longer, or begin it earlier."
        )


def _as_columns(features: Any) -> Mapping[str, Any]:
    if not isinstance(features, Mapping):
        return {IMAGE_KEY: features}
    if IMAGE_KEY not in features:
        raise UserError(f"the features {sorted(features)} hold no {IMAGE_KEY!r}; name the picture tensor so.")
    return features


@contextlib.contextmanager
def _recorded_variables() -> Iterator[list[Any]]:
    """Collects the variables that its body creates or, in the further replicas of a strategy, uses again."""
    variables: list[Any] = []

    def record(variable: Any) -> Any:
        if all(variable is not known for known in variables):
            variables.append(variable)
        return variable

    def create(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        return record(next_creator(**kwargs))

    def get(getter: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return record(getter(*args, **kwargs))

    scope = tf.compat.v1.get_variable_scope()
    with tf.variable_creator_scope(create), tf.compat.v1.variable_scope(scope, custom_getter=get):
        yield variables


def _regularization(plan: VariablePlan, built: BuiltBackbone) -> list[Any]:
    """Keeps the losses that training can lower; those of frozen variables are constants."""
    if plan.frozen_whole:
        return []
    return [loss for name, loss in built.regularization_losses if name is None or name in plan.trainable]


def _rate_spans(plan: VariablePlan) -> list[RateSpan]:
    return [RateSpan(s.start, s.end, s.phase.learning_rate, s.phase.multiplier, s.phase.restart) for s in plan.spans]


def _gated_steps(plan: VariablePlan, built: BuiltBackbone) -> dict[str, Any]:
    """Returns the steps of the backbone's variables that are not trained from the first step to the last."""
    steps = {built.variables[name].op.name: plan.active_steps(name) for name in plan.trainable}
    return {name: intervals for name, intervals in steps.items() if intervals != [(0, None)]}


def _training_hooks(
    plan: VariablePlan, built: BuiltBackbone, head_variables: list[Any], show: Callable[[str], None]
) -> list[Any]:
    sizes = {variable.op.name: variable.shape.num_elements() for variable in head_variables}
    return [
        PlanHook(plan_table(plan, sizes), show),
        FrozenCheckHook({name: built.variables[name] for name in plan.frozen}),
    ]


def _scaffold(built: BuiltBackbone) -> Any:
    """Returns a Scaffold that assigns pretrained values where no checkpoint is restored; None where not needed."""
    if built.initial_values is None:
        return None
    read = built.initial_values
    variables = built.variables

    def init_fn(scaffold: Any, session: Any) -> None:
        del scaffold
        values = read()
        pending: dict[Any, Any] = {}
        size = 0
        for name, variable in variables.items():
            # Feeding the initializer's own value tensor adds no op to the graph.
            for copy in getattr(variable, "values", None) or (variable,):
                pending[copy.initializer] = (copy.initializer.inputs[1], values[name])
            size += values[name].nbytes
            if size >= _ASSIGN_BYTES:
                _assign(session, pending)
                pending, size = {}, 0
        _assign(session, pending)

    return tf.compat.v1.train.Scaffold(init_fn=init_fn)


def _assign(session: Any, pending: Mapping[Any, tuple[Any, Any]]) -> None:
    if pending:
        session.run(list(pending), feed_dict=dict(pending.values()))
