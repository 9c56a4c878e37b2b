"""Slot variables of optimizers, also for variables that have no gradient in the current graph."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.tf_internals.keras.optimizer import KerasOptimizer
from estimator_tl.types import Variable


def create_slots(optimizer: Any, variables: Sequence[Variable]) -> None:
    """Creates the slot variables of an optimizer for variables, even if this graph does not train them.

    The graph of one phase needs them so that its checkpoints contain the slots of later phases.

    Args:
      optimizer: a `tf.compat.v1.train.Optimizer` or `KerasOptimizer` of this graph.
      variables: the variables whose slots checkpoints must contain.
    """
    tf = load_tensorflow()
    with tf.init_scope():
        if isinstance(optimizer, KerasOptimizer):
            with tf.name_scope(optimizer.inner._name):  # the scope of its apply_gradients; checkpoints have these names
                optimizer.inner._create_all_weights(list(variables))
            return
        for part in parts(optimizer):
            if tf.distribute.has_strategy():
                context = tf.distribute.get_replica_context()
                context.merge_call(lambda strategy, part=part: part._create_slots(list(variables)))
            else:
                part._create_slots(list(variables))


def parts(optimizer: Any) -> list[Any]:
    """Returns a `tf.compat.v1.train.Optimizer` and the optimizers that it wraps, at any depth."""
    base = load_tensorflow().compat.v1.train.Optimizer
    inner = [value for value in vars(optimizer).values() if isinstance(value, base)]
    return [optimizer, *(part for value in inner for part in parts(value))]


def fresh_copy(optimizer: Any) -> Any:
    """Returns a copy of a `tf.compat.v1.train.Optimizer` and of all that it wraps, without slots of other graphs."""
    result = copy.copy(optimizer)
    for name, value in vars(result).items():
        if isinstance(value, load_tensorflow().compat.v1.train.Optimizer):
            setattr(result, name, fresh_copy(value))
    result._slots, result._non_slot_dict, result._deferred_slot_restorations = {}, {}, {}
    return result
