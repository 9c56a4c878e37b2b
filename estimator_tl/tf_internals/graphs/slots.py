"""Slot variables of optimizers beyond those that a graph's gradients need."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.tf_internals.keras.optimizer import KerasOptimizer


def create_slots(optimizer: Any, variables: Sequence[Any]) -> None:
    """Creates an optimizer's slots for variables, whether it moves them in this graph or not.

    A graph that serves one phase needs them in its checkpoints, for the phases to come.

    Args:
      optimizer: a `tf.compat.v1.train.Optimizer` or `KerasOptimizer` of this graph.
      variables: all that a checkpoint is to hold slots of.
    """
    tf = load_tensorflow()
    with tf.init_scope():
        if isinstance(optimizer, KerasOptimizer):
            with tf.name_scope(optimizer.inner._name):  # as its apply_gradients does; the names are in checkpoints
                optimizer.inner._create_all_weights(list(variables))
            return
        for part in parts(optimizer):
            if tf.distribute.has_strategy():
                context = tf.distribute.get_replica_context()
                context.merge_call(lambda strategy, part=part: part._create_slots(list(variables)))
            else:
                part._create_slots(list(variables))


def parts(optimizer: Any) -> list[Any]:
    """Returns a `tf.compat.v1.train.Optimizer` and those that it wraps, at any depth."""
    kind = load_tensorflow().compat.v1.train.Optimizer
    wrapped = [value for value in vars(optimizer).values() if isinstance(value, kind)]
    return [optimizer, *(part for value in wrapped for part in parts(value))]


def fresh_copy(optimizer: Any) -> Any:
    """Returns a copy of a `tf.compat.v1.train.Optimizer`, of those that it wraps too, without slots of other graphs."""
    made = copy.copy(optimizer)
    for name, value in vars(made).items():
        if isinstance(value, load_tensorflow().compat.v1.train.Optimizer):
            setattr(made, name, fresh_copy(value))
    made._slots, made._non_slot_dict, made._deferred_slot_restorations = {}, {}, {}
    return made
