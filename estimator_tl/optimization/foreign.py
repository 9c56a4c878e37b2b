"""Optimizers that users bring: from `tf.compat.v1.train`, of their own, or from Keras's legacy ones."""

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

#: Keras optimizers whose bias correction is a variable shared by all weights, which no phase can begin anew.
_SHARED_CORRECTION = ("Nadam",)


@dataclasses.dataclass(frozen=True)
class ForeignOptimizer:
    """An optimizer that somebody else made; it sets its own learning rate.

    Attributes:
      make: returns it; called in each graph.
    """

    make: Callable[[], Any]

    def with_learning_rate(self, learning_rate: float | str | Schedule) -> ForeignOptimizer:
        """Refuses: the rate is the optimizer's own.

        Raises:
          UserError: always.
        """
        raise UserError(
            f"learning rate {learning_rate} is given, but the optimizer is one of your own, which sets its rate "
            "itself; leave the learning rate out, or name one of etl.optimizers."
        )

    def check(self, spans: Sequence[Span]) -> None:
        """Checks that phases leave the learning rate alone.

        Raises:
          UserError: one does not.
        """
        for span in spans:
            if span.learning_rate is not None or span.multiplier != 1.0 or span.restart:
                raise UserError(
                    f"the phase from step {span.start} changes the learning rate, but the optimizer is one of your "
                    "own, which sets its rate itself; put the change into its schedule, or name one of etl.optimizers."
                )

    def in_graph(self, step: Any, spans: Sequence[Span], total_steps: int | None) -> Any:
        """Returns an optimizer of the current graph with the interface of `tf.compat.v1.train.Optimizer`."""
        del step, total_steps
        made = _checked(self.make())
        if not is_legacy_keras_optimizer(made):
            return fresh_copy(made)
        if len(spans) > 1 and type(made).__name__ in _SHARED_CORRECTION:
            raise UserError(
                f"{type(made).__name__} shares its bias correction between all variables, so it cannot begin anew with "
                "a phase; use Adam, or a policy without phases."
            )
        return KerasOptimizer(made, tf.compat.v1.train.get_or_create_global_step())


def as_optimizer(value: Any) -> Optimizer | ForeignOptimizer:
    """Returns what `make_model_fn` trains with.

    Args:
      value: one of `etl.optimizers`; a `tf.compat.v1.train.Optimizer` or a legacy Keras optimizer; or a function
        without arguments that returns one of these two in each graph (needed where its learning rate is a tensor).

    Raises:
      UserError: it is none of them.
    """
    if isinstance(value, (Optimizer, ForeignOptimizer)):
        return value
    if (
        callable(value)
        and not isinstance(value, type)
        and not _is_optimizer(value)
        and not is_new_keras_optimizer(value)
    ):
        return ForeignOptimizer(value)
    checked = _checked(value)
    return ForeignOptimizer(lambda: checked)


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, tf.compat.v1.train.Optimizer) or is_legacy_keras_optimizer(value)


def _checked(value: Any) -> Any:
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
