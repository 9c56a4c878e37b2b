"""Dense layers on `tf.compat.v1` variables, whose names do not depend on the name counters of Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.types import Tensor

ACTIVATIONS = ("relu", "elu", "selu", "gelu", "swish", "tanh", "sigmoid", "linear")


def dense(inputs: Tensor, units: int, name: str) -> Any:
    """Returns inputs @ kernel + bias for inputs [batch, depth]; the kernel begins Glorot uniform, the bias at zero."""
    depth = inputs.shape[-1]
    if depth is None:
        raise UserError(f"the features have unknown depth {inputs.shape}; set --image_size or another pooling.")
    with tf.compat.v1.variable_scope(name):
        kernel = tf.compat.v1.get_variable(
            "kernel", [depth, units], initializer=tf.compat.v1.glorot_uniform_initializer(), use_resource=True
        )
        bias = tf.compat.v1.get_variable(
            "bias", [units], initializer=tf.compat.v1.zeros_initializer(), use_resource=True
        )
        return tf.linalg.matmul(inputs, kernel) + bias


def hidden_stack(inputs: Tensor, hidden_units: Sequence[int], activation: str, dropout: float, training: bool) -> Any:
    """Returns the features after dense layers with activation, each followed by dropout in training.

    Without hidden units dropout applies to the features themselves.
    """
    if not hidden_units:
        return _drop(inputs, dropout, training, 0)
    outputs = inputs
    for index, units in enumerate(hidden_units):
        outputs = dense(outputs, units, f"hidden_{index}")
        if activation != "linear":
            outputs = getattr(tf.nn, activation)(outputs)
        outputs = _drop(outputs, dropout, training, index)
    return outputs


def _drop(inputs: Tensor, rate: float, training: bool, index: int) -> Any:
    """Applies dropout that only depends on the graph's seed, the layer's index, the global step and the replica.

    So a resumed run drops the same values as a run that was never stopped.
    """
    if not training or not rate:
        return inputs
    seed = tf.compat.v1.get_default_graph().seed or 0
    context = tf.distribute.get_replica_context()
    replica = context.replica_id_in_sync_group if context else 0
    step = tf.cast(tf.compat.v1.train.get_or_create_global_step(), tf.int32)
    key = tf.random.experimental.stateless_fold_in([seed, index], step)
    key = tf.random.experimental.stateless_fold_in(key, replica)
    return tf.nn.experimental.stateless_dropout(inputs, rate=rate, seed=key)
