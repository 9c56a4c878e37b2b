"""Legacy Keras optimizers in the graph of a model_fn, with the interface of `tf.compat.v1.train.Optimizer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.compat.keras2 import load_keras2
from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.types import Tensor


class KerasOptimizer:
    """A fresh copy of a legacy Keras optimizer that counts its steps in the global step.

    By default, such an optimizer counts in a separate variable and the global step stays at 0, so training never
    reaches `max_steps`. Under a strategy it sums the gradients of the replicas. This class scales the loss so that the
    sum is the mean of the gradients, as with `tf.compat.v1.train` optimizers under Estimator.

    Attributes:
      inner: the Keras optimizer of this graph.
    """

    def __init__(self, optimizer: Any, global_step: Any):
        """Args: optimizer: the optimizer to copy by its configuration. global_step: the global step of the graph."""
        self.inner = type(optimizer).from_config(optimizer.get_config())
        self.inner.iterations = global_step

    def compute_gradients(self, loss: Tensor, var_list: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Returns pairs of gradient and variable; a gradient is None if the loss does not depend on the variable."""
        tf = load_tensorflow()
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            loss = loss / replicas
        return list(zip(tf.gradients(loss, list(var_list)), var_list))

    def apply_gradients(self, pairs: Sequence[tuple[Any, Any]], global_step: Any) -> Any:
        """Returns the op that updates the variables and increments the global step."""
        del global_step  # the optimizer counts in it already
        return self.inner.apply_gradients(pairs)


def is_legacy_keras_optimizer(value: Any) -> bool:
    """True for the optimizers of `keras.optimizers.legacy`, which work in a graph."""
    return isinstance(value, load_keras2().optimizers.legacy.Optimizer)


def is_new_keras_optimizer(value: Any) -> bool:
    """True for Keras optimizers that need eager execution: all of Keras 3, and the non-legacy ones of Keras 2."""
    names = {f"{base.__module__}.{base.__name__}" for base in type(value).__mro__}
    return not is_legacy_keras_optimizer(value) and any(
        name.startswith(("keras.", "tf_keras.")) and ".optimizers." in name for name in names
    )
