"""Optimizers whose variables are moved in some steps only.

The gate is inside the op that applies a variable's gradient: one `tf.cond` a
variable. A single `tf.cond` around `apply_gradients` fails under
MirroredStrategy, and gradients multiplied by zero still move a variable by
momentum or weight decay.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.spans import Interval
from estimator_tl.tf_internals.graphs.replicas import copies
from estimator_tl.tf_internals.graphs.slots import parts
from estimator_tl.tf_internals.keras.optimizer import KerasOptimizer

_APPLY = (
    "_apply_dense",
    "_apply_sparse_duplicate_indices",
    "_resource_apply_dense",
    "_resource_apply_sparse_duplicate_indices",
)
_SCOPE = "estimator_tl_gate"
_WRITES = re.compile(r"(Resource)?(Sparse)?(Apply|Scatter|Assign)")


class NotGatedError(ValueError):
    """An optimizer that writes to variables in another way than TensorFlow's interface for it."""


@dataclasses.dataclass(frozen=True)
class Gate:
    """When variables are moved.

    Attributes:
      steps: intervals by the name of a variable's op; variables not named are always moved.
      global_step: int64 scalar tensor, the step that is being made.
      switch: False in a graph that runs only while all of its variables are moved: then each begins with its own
        first step, but nothing has to be switched off.
    """

    steps: Mapping[str, Sequence[Interval]]
    global_step: Any
    switch: bool = True

    def put_on(self, optimizer: Any) -> None:
        """Makes an optimizer leave variables and their slots alone outside of their steps.

        Adam's bias correction is global in TensorFlow: a variable that joins at step
        5,000 would be moved by several learning rates at once. Here each variable has
        its own, counted from its own first step.

        Args:
          optimizer: a `tf.compat.v1.train.Optimizer` or `KerasOptimizer` of this graph; changed in place, and those
            that it wraps with it.
        """
        tf = load_tensorflow()
        keras = isinstance(optimizer, KerasOptimizer)
        own = _own_keras_step if keras else _own_adam_powers
        for part in [optimizer.inner] if keras else parts(optimizer):
            current: list[Any] = []
            own(part, current)
            for method in _APPLY:
                if hasattr(part, method):
                    setattr(part, method, self._gated(tf, getattr(part, method), current))

    def moves(self, variable: Any) -> Any:
        """Returns whether the step moves a variable, a bool scalar tensor; None where each step of the graph does."""
        intervals = self.steps.get(_name(variable)) if self.switch else None
        return None if intervals is None else _is_active(load_tensorflow(), intervals, self.global_step)

    def _gated(self, tf: Any, apply: Callable[..., Any], current: list[Any]) -> Callable[..., Any]:
        def gated(gradient: Any, variable: Any, *rest: Any, **named: Any) -> Any:
            intervals = self.steps.get(_name(variable))
            if intervals is None:
                return apply(gradient, variable, *rest, **named)

            def move() -> Any:
                current.append(_steps_before(tf, intervals, self.global_step))
                try:
                    return apply(gradient, variable, *rest, **named)
                finally:
                    current.pop()

            def move_and_tell() -> Any:
                with tf.control_dependencies([move()]):
                    return tf.constant(True)

            if not self.switch:
                with tf.name_scope(_SCOPE):
                    return move()
            return tf.cond(_is_active(tf, intervals, self.global_step), move_and_tell, lambda: tf.constant(False)).op

        return gated

    @contextlib.contextmanager
    def checked(self, variables: Iterable[Any]) -> Iterator[None]:
        """Checks that its body, which applies gradients, writes to gated variables through the gate only.

        Raises:
          NotGatedError: it does not, as optimizers that assign to variables in an `apply_gradients` of their own.
        """
        gated = [copy for variable in variables if _name(variable) in self.steps for copy in copies(variable)]
        before = {id(op) for copy in gated for op in _writes(copy)}
        yield
        after = [(_name(copy), op) for copy in gated for op in _writes(copy) if id(op) not in before]
        past = sorted({name for name, op in after if _SCOPE not in op.name})
        if past:
            raise NotGatedError(
                f"the optimizer writes to {past[0]} other than by _resource_apply_dense or _apply_dense, so it cannot "
                "be kept from moving variables of a later phase; use one of etl.optimizers, or a policy without phases."
            )


def _name(variable: Any) -> str:
    return re.sub(r"/replica_\d+$", "", variable.op.name)


def _writes(variable: Any) -> list[Any]:
    return [op for op in variable.op.outputs[0].consumers() if _WRITES.match(op.type)]


def _own_adam_powers(optimizer: Any, current: list[Any]) -> None:
    """Gives Adam powers of its betas by a variable's own count of steps, `current[-1]`."""
    tf = load_tensorflow()
    if not isinstance(optimizer, tf.compat.v1.train.AdamOptimizer):
        return
    accumulators = optimizer._get_beta_accumulators

    def own_accumulators() -> tuple[Any, Any]:
        if not current:
            made: tuple[Any, Any] = accumulators()
            return made
        count = tf.cast(current[-1] + 1, tf.float32)
        return tf.pow(optimizer._beta1_t, count), tf.pow(optimizer._beta2_t, count)

    optimizer._get_beta_accumulators = own_accumulators


def _own_keras_step(optimizer: Any, current: list[Any]) -> None:
    """Gives a Keras optimizer's bias correction a variable's own count of steps; its schedule keeps the run's.

    A gate hides from Keras that the methods take its precomputed state, so each call computes what it needs itself.
    """
    rate = optimizer._decayed_lr
    shared = optimizer.iterations

    def rate_of_the_run(dtype: Any) -> Any:
        counted, optimizer._iterations = optimizer._iterations, shared
        try:
            return rate(dtype)
        finally:
            optimizer._iterations = counted

    def counting(apply: Callable[..., Any]) -> Callable[..., Any]:
        def applied(*arguments: Any, **named: Any) -> Any:
            optimizer._iterations = current[-1] if current else shared
            try:
                return apply(*arguments, **named)
            finally:
                optimizer._iterations = shared

        return applied

    optimizer._decayed_lr = rate_of_the_run
    for method in ("_resource_apply_dense", "_resource_apply_sparse_duplicate_indices"):
        setattr(optimizer, method, counting(getattr(optimizer, method)))


def _is_active(tf: Any, intervals: Sequence[Interval], step: Any) -> Any:
    return tf.reduce_any(tf.stack([interval.contains(step) for interval in intervals]))


def _steps_before(tf: Any, intervals: Sequence[Interval], step: Any) -> Any:
    """Returns how many of the steps before `step` lie in the intervals (int64)."""
    total = tf.zeros([], tf.int64)
    for interval in intervals:
        passed = tf.maximum(step - interval.start, 0)
        total += passed if interval.length is None else tf.minimum(passed, interval.length)
    return total
