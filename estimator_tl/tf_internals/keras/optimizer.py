"""Legacy Keras optimizers in the graph of a model_fn, with the interface of `tf.compat.v1.train.Optimizer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.compat.keras2 import load_keras2
from estimator_tl.compat.versions import load_tensorflow


class KerasOptimizer:
    """A fresh copy of a legacy Keras optimizer that counts its steps in the global step.

    Left alone, such an optimizer counts in a variable of its own and the global step stays at 0, so that training
    never reaches `max_steps`. Under a strategy it sums gradients over replicas; the loss is scaled here so that the
    sum is their mean, as `tf.compat.v1.train` optimizers do under Estimator.

    Attributes:
      inner: the Keras optimizer of this graph.
    """

    def __init__(self, optimizer: Any, global_step: Any):
        """Args: optimizer: copied through its configuration. global_step: the graph's."""
        self.inner = type(optimizer).from_config(optimizer.get_config())
        self.inner.iterations = global_step

    def compute_gradients(self, loss: Any, var_list: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Returns pairs of gradient and variable; the gradient is None where the loss does not depend on it."""
        tf = load_tensorflow()
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        gradients = tf.gradients(loss / replicas if replicas > 1 else loss, list(var_list))
        return list(zip(gradients, var_list))

    def apply_gradients(self, pairs: Sequence[tuple[Any, Any]], global_step: Any) -> Any:
        """Returns the op that moves the variables and advances the global step, which the optimizer was given."""
        del global_step
        return self.inner.apply_gradients(pairs)


def is_legacy_keras_optimizer(value: Any) -> bool:
    """True for the optimizers of `keras.optimizers.legacy`, which work in a graph."""
    return isinstance(value, load_keras2().optimizers.legacy.Optimizer)


def is_new_keras_optimizer(value: Any) -> bool:
    """True for Keras optimizers that need eager execution: those of Keras 3, and the new ones of Keras 2."""
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(value).__mro__}
    return not is_legacy_keras_optimizer(value) and any(
        name.startswith(("keras.", "tf_keras.")) and ".optimizers." in name for name in kinds
    )
