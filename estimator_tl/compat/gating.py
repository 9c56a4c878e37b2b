"""Optimizers whose variables are moved in some steps only.

The gate is inside the op that applies a variable's gradient: one `tf.cond` a
variable. A single `tf.cond` around `apply_gradients` fails under
MirroredStrategy, and gradients multiplied by zero still move a variable by
momentum or weight decay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl.compat.versions import load_tensorflow

#: Intervals of global steps [start, end) in which a variable is moved; end None: for ever.
Steps = Sequence[tuple[int, "int | None"]]
_APPLY = (
    "_apply_dense",
    "_apply_sparse_duplicate_indices",
    "_resource_apply_dense",
    "_resource_apply_sparse_duplicate_indices",
)


def gate(optimizer: Any, steps: Mapping[str, Steps], global_step: Any) -> Any:
    """Makes an optimizer leave variables and their slots alone outside of their steps.

    Adam's bias correction is global in TensorFlow: a variable that joins at step
    5,000 would be moved by several learning rates at once. Here each variable has
    its own, counted from its own first step.

    Args:
      optimizer: a `tf.compat.v1.train.Optimizer`, just made; changed in place.
      steps: when a variable is moved, by its op's name; variables not named are always moved.
      global_step: int64 scalar tensor, the step that is being made.

    Returns:
      The optimizer.
    """
    tf = load_tensorflow()
    current: list[str] = []
    for method in _APPLY:
        setattr(optimizer, method, _gated(tf, getattr(optimizer, method), steps, global_step, current))
    if isinstance(optimizer, tf.compat.v1.train.AdamOptimizer):
        accumulators = optimizer._get_beta_accumulators

        def own_accumulators() -> tuple[Any, Any]:
            intervals = steps.get(current[-1]) if current else None
            if intervals is None:
                made: tuple[Any, Any] = accumulators()
                return made
            count = tf.cast(_steps_before(tf, intervals, global_step) + 1, tf.float32)
            return tf.pow(optimizer._beta1_t, count), tf.pow(optimizer._beta2_t, count)

        optimizer._get_beta_accumulators = own_accumulators
    return optimizer


def _gated(
    tf: Any, apply: Callable[..., Any], steps: Mapping[str, Steps], global_step: Any, current: list[str]
) -> Callable[..., Any]:
    def gated(gradient: Any, variable: Any, *rest: Any) -> Any:
        name = re.sub(r"/replica_\d+$", "", variable.op.name)
        intervals = steps.get(name)
        if intervals is None:
            return apply(gradient, variable, *rest)

        def move() -> Any:
            current.append(name)
            try:
                with tf.control_dependencies([apply(gradient, variable, *rest)]):
                    return tf.constant(True)
            finally:
                current.pop()

        return tf.cond(_is_active(tf, intervals, global_step), move, lambda: tf.constant(False)).op

    return gated


def _is_active(tf: Any, intervals: Steps, step: Any) -> Any:
    parts = []
    for start, end in intervals:
        inside = step >= start
        parts.append(inside if end is None else tf.logical_and(inside, step < end))
    return tf.reduce_any(tf.stack(parts))


def _steps_before(tf: Any, intervals: Steps, step: Any) -> Any:
    """Returns how many of the steps before `step` lie in the intervals (int64)."""
    total = tf.zeros([], tf.int64)
    for start, end in intervals:
        passed = tf.maximum(step - start, 0)
        total += passed if end is None else tf.minimum(passed, end - start)
    return total
