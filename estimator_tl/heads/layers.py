"""Dense layers on `tf.compat.v1` variables, with names that do not depend on Keras's counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError

ACTIVATIONS = ("relu", "elu", "selu", "gelu", "swish", "tanh", "sigmoid", "linear")


def dense(inputs: Any, units: int, name: str) -> Any:
    """Returns inputs @ kernel + bias for inputs [batch, depth]; kernel Glorot uniform, bias zero."""
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


def hidden_stack(inputs: Any, hidden_units: Sequence[int], activation: str, dropout: float, training: bool) -> Any:
    """Returns the features after dense layers with activation, each followed by dropout in training.

    With no hidden units the dropout applies to the features themselves.
    """
    function = None if activation == "linear" else getattr(tf.nn, activation)
    outputs = inputs
    for index, units in enumerate(hidden_units):
        outputs = dense(outputs, units, f"hidden_{index}")
        outputs = outputs if function is None else function(outputs)
        outputs = _drop(outputs, dropout, training, index)
    return outputs if hidden_units else _drop(outputs, dropout, training, 0)


def _drop(inputs: Any, rate: float, training: bool, index: int) -> Any:
    """Drops by the graph's seed, the place of the layer, the global step and the replica alone.

    A run that is stopped and goes on must drop what it would have dropped.
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
