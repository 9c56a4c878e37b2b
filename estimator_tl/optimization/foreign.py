"""Optimizers of users: from `tf.compat.v1.train`, a class that they wrote, or a legacy Keras optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.optimization.optimizers import Optimizer
from estimator_tl.optimization.schedules import Schedule
from estimator_tl.spans import Span
from estimator_tl.tf_internals.graphs.slots import fresh_copy
from estimator_tl.tf_internals.keras.optimizer import KerasOptimizer, is_legacy_keras_optimizer, is_new_keras_optimizer

#: Keras optimizers whose bias correction is a variable shared by all weights, which cannot restart with a phase.
_SHARED_CORRECTION = ("Nadam",)


@dataclasses.dataclass(frozen=True)
class ForeignOptimizer:
    """A user's optimizer, which sets its learning rate itself.

    Attributes:
      make: returns the optimizer; called in each graph.
    """

    make: Callable[[], Any]

    def with_learning_rate(self, learning_rate: float | str | Schedule) -> ForeignOptimizer:
        """Refuses, as the optimizer sets its rate itself.

        Raises:
          UserError: always.
        """
        raise UserError(
            f"learning rate {learning_rate} conflicts with your own optimizer, which sets its rate itself; leave the "
            "learning rate out, or use one of etl.optimizers."
        )

    def check(self, spans: Sequence[Span]) -> None:
        """Checks that no phase changes the learning rate.

        Raises:
          UserError: a phase changes the learning rate.
        """
        for span in spans:
            if span.learning_rate is not None or span.multiplier != 1.0 or span.restart:
                raise UserError(
                    f"the phase from step {span.start} changes the learning rate, but your own optimizer sets its "
                    "rate itself; put the change into its schedule, or use one of etl.optimizers."
                )

    def in_graph(self, step: Any, spans: Sequence[Span], total_steps: int | None) -> Any:
        """Returns an optimizer for the current graph, with the interface of `tf.compat.v1.train.Optimizer`."""
        del step, total_steps
        optimizer = _check_optimizer(self.make())
        if not is_legacy_keras_optimizer(optimizer):
            return fresh_copy(optimizer)
        if len(spans) > 1 and type(optimizer).__name__ in _SHARED_CORRECTION:
            raise UserError(
                f"{type(optimizer).__name__} shares its bias correction between all variables, so it cannot restart "
                "with a phase; use Adam, or a policy without phases."
            )
        return KerasOptimizer(optimizer, tf.compat.v1.train.get_or_create_global_step())


def as_optimizer(value: Any) -> Optimizer | ForeignOptimizer:
    """Converts the `optimizer` argument of `make_model_fn`.

    Args:
      value: one of `etl.optimizers`; a `tf.compat.v1.train.Optimizer` or a legacy Keras optimizer; or a function
        without arguments that returns one of these two in each graph (needed if the learning rate is a tensor).

    Raises:
      UserError: `value` is not an optimizer, or is a new Keras optimizer.
    """
    if isinstance(value, (Optimizer, ForeignOptimizer)):
        return value
    is_object = isinstance(value, type) or _is_optimizer(value) or is_new_keras_optimizer(value)
    if callable(value) and not is_object:
        return ForeignOptimizer(value)
    optimizer = _check_optimizer(value)
    return ForeignOptimizer(lambda: optimizer)


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, tf.compat.v1.train.Optimizer) or is_legacy_keras_optimizer(value)


def _check_optimizer(value: Any) -> Any:
    if _is_optimizer(value):
        return value
    if is_new_keras_optimizer(value):
        name = type(value).__name__
        raise UserError(
            f"{type(value).__module__}.{name} works in eager execution only, and an Estimator trains in a graph; "
            f"use etl.keras.optimizers.legacy.{name} or etl.optimizers."
        )
    raise UserError(
        f"{value!r} is not an optimizer; give one of etl.optimizers, a tf.compat.v1.train.Optimizer, a legacy Keras "
        "optimizer, or a function that returns one."
    )
