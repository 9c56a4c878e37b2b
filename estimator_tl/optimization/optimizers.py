"""The optimizers that the flags name; in each graph they become `tf.compat.v1.train` optimizers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.optimization.schedules import Schedule, as_schedule, phased_rate
from estimator_tl.registry import Registry
from estimator_tl.spans import Span

registry = Registry("optimizer")
_DEFAULT_RATE = 1e-3


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer and its learning rate, independent of any graph.

    Attributes:
      name: sgd, adam or rmsprop.
      schedule: the learning rate.
      settings: the other arguments of the optimizer, by their names in `tf.compat.v1.train`.
    """

    name: str
    schedule: Schedule
    settings: tuple[tuple[str, Any], ...] = ()

    def with_learning_rate(self, learning_rate: float | str | Schedule) -> Optimizer:
        """Returns this optimizer with another rate or schedule."""
        return dataclasses.replace(self, schedule=as_schedule(learning_rate))

    def check(self, spans: Sequence[Span]) -> None:
        """Accepts all spans, as every phase may change the learning rate."""

    def in_graph(self, step: Any, spans: Sequence[Span], total_steps: int | None) -> Any:
        """Returns a `tf.compat.v1.train.Optimizer` for the current graph, and writes its learning rate as a summary.

        Args:
          step: the global step before this training step, an int64 scalar tensor.
          spans: the spans of the plan, in order.
          total_steps: the global step at which the run ends, if known.
        """
        rate = phased_rate(self.schedule, spans, step, total_steps)
        with tf.compat.v1.name_scope(None):  # so the tag does not depend on the head's scope
            tf.compat.v1.summary.scalar("learning_rate", rate)
        train = tf.compat.v1.train
        settings = dict(self.settings)
        if self.name == "sgd":
            if not settings["momentum"]:
                return train.GradientDescentOptimizer(rate)
            return train.MomentumOptimizer(rate, **settings)
        kinds = {"adam": train.AdamOptimizer, "rmsprop": train.RMSPropOptimizer}
        return kinds[self.name](rate, **settings)


def _optimizer(name: str, learning_rate: Any, **settings: Any) -> Optimizer:
    for key, value in settings.items():
        if isinstance(value, bool):
            continue
        limit, bounds = 1.0, "in [0, 1)"
        if key == "epsilon":
            limit, bounds = math.inf, "at least 0"
        if not isinstance(value, (int, float)) or not 0 <= value < limit:
            raise UserError(f"{name}: {key}={value!r} must be {bounds}.")
    return Optimizer(name, as_schedule(learning_rate), tuple(settings.items()))


@registry.register()
def sgd(
    learning_rate: float | str | Schedule = _DEFAULT_RATE, momentum: float = 0.0, nesterov: bool = False
) -> Optimizer:
    """Stochastic gradient descent, optionally with momentum.

    Example:
      >>> model_fn = etl.make_model_fn(
      ...     backbone, etl.heads.classifier(labels=data.labels), optimizer=etl.optimizers.sgd(0.01, momentum=0.9)
      ... )
    """
    if nesterov and not momentum:
        raise UserError("sgd: nesterov=True needs a momentum above 0, e.g. momentum=0.9.")
    return _optimizer("sgd", learning_rate, momentum=momentum, use_nesterov=nesterov)


@registry.register()
def adam(
    learning_rate: float | str | Schedule = _DEFAULT_RATE,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> Optimizer:
    """Adam (Kingma and Ba 2015).

    Example:
      >>> model_fn = etl.make_model_fn(
      ...     backbone, etl.heads.classifier(labels=data.labels), optimizer=etl.optimizers.adam("cosine(1e-3, 500)")
      ... )
    """
    return _optimizer("adam", learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon)


@registry.register()
def rmsprop(
    learning_rate: float | str | Schedule = _DEFAULT_RATE,
    decay: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-10,
    centered: bool = False,
) -> Optimizer:
    """RMSProp (Tieleman and Hinton 2012).

    Example:
      >>> model_fn = etl.make_model_fn(
      ...     backbone, etl.heads.classifier(labels=data.labels), optimizer=etl.optimizers.rmsprop(1e-3, momentum=0.9)
      ... )
    """
    return _optimizer("rmsprop", learning_rate, decay=decay, momentum=momentum, epsilon=epsilon, centered=centered)
