"""Gates: optimizers that update some variables only in some steps.

The gate is a `tf.cond` inside the op that applies the gradient of a variable, one for each variable. A single `tf.cond`
around `apply_gradients` fails under MirroredStrategy. Gradients multiplied by zero are no solution either: momentum and
weight decay still change the variable.
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
from estimator_tl.types import Tensor, Variable

_APPLY = (
    "_apply_dense",
    "_apply_sparse_duplicate_indices",
    "_resource_apply_dense",
    "_resource_apply_sparse_duplicate_indices",
)
_SCOPE = "estimator_tl_gate"
_WRITES = re.compile(r"(Resource)?(Sparse)?(Apply|Scatter|Assign)")


class NotGatedError(ValueError):
    """The optimizer writes to variables past TensorFlow's methods for applying a gradient."""


@dataclasses.dataclass(frozen=True)
class Gate:
    """The steps in which each variable is updated.

    Attributes:
      steps: intervals of steps by the name of a variable's op; a variable without intervals is always updated.
      global_step: int64 scalar tensor, the current step.
      switch: False in a graph that runs only while all of its variables are updated. Then there is nothing to switch
        off, but each variable still counts from its own first step.
    """

    steps: Mapping[str, Sequence[Interval]]
    global_step: Any
    switch: bool = True

    def put_on(self, optimizer: Any) -> None:
        """Makes an optimizer leave each variable and its slots unchanged outside of the variable's steps.

        In TensorFlow, Adam has one bias correction for all variables, so a variable that joins at step 5,000 would
        change by several learning rates at once. Here each variable has a separate one, counted from the first step of
        the variable.

        Args:
          optimizer: a `tf.compat.v1.train.Optimizer` or `KerasOptimizer` of this graph; changed in place, together
            with the optimizers that it wraps.
        """
        tf = load_tensorflow()
        if isinstance(optimizer, KerasOptimizer):
            optimizers, count_separately = [optimizer.inner], _count_keras_steps
        else:
            optimizers, count_separately = parts(optimizer), _count_adam_steps
        for part in optimizers:
            current: list[Any] = []
            count_separately(part, current)
            for method in _APPLY:
                if hasattr(part, method):
                    setattr(part, method, self._gated(tf, getattr(part, method), current))

    def moves(self, variable: Variable) -> Any:
        """Returns a bool scalar tensor, whether this step updates a variable; None if every step of the graph does."""
        intervals = self.steps.get(_name(variable))
        if intervals is None or not self.switch:
            return None
        return _is_active(load_tensorflow(), intervals, self.global_step)

    def _gated(self, tf: Any, apply: Callable[..., Any], current: list[Any]) -> Callable[..., Any]:
        def gated(gradient: Tensor, variable: Variable, *rest: Any, **kwargs: Any) -> Any:
            intervals = self.steps.get(_name(variable))
            if intervals is None:
                return apply(gradient, variable, *rest, **kwargs)

            def update() -> Any:
                current.append(_steps_before(tf, intervals, self.global_step))
                try:
                    return apply(gradient, variable, *rest, **kwargs)
                finally:
                    current.pop()

            def update_and_return_true() -> Any:
                with tf.control_dependencies([update()]):
                    return tf.constant(True)

            if not self.switch:
                with tf.name_scope(_SCOPE):
                    return update()
            is_active = _is_active(tf, intervals, self.global_step)
            return tf.cond(is_active, update_and_return_true, lambda: tf.constant(False)).op

        return gated

    @contextlib.contextmanager
    def checked(self, variables: Iterable[Variable]) -> Iterator[None]:
        """Checks that the body of the `with` block applies gradients to gated variables through the gate only.

        Raises:
          NotGatedError: the optimizer writes past the gate, for example in its own `apply_gradients`.
        """
        gated = [copy for variable in variables if _name(variable) in self.steps for copy in copies(variable)]
        before = {id(op) for copy in gated for op in _writes(copy)}
        yield
        after = [(_name(copy), op) for copy in gated for op in _writes(copy) if id(op) not in before]
        ungated = sorted({name for name, op in after if _SCOPE not in op.name})
        if ungated:
            raise NotGatedError(
                f"the optimizer writes to {ungated[0]} without _resource_apply_dense or _apply_dense, so it would also "
                "train variables of a later phase; use one of etl.optimizers, or a policy without phases."
            )


def _name(variable: Variable) -> str:
    return re.sub(r"/replica_\d+$", "", variable.op.name)


def _writes(variable: Variable) -> list[Any]:
    return [op for op in variable.op.outputs[0].consumers() if _WRITES.match(op.type)]


def _count_adam_steps(optimizer: Any, current: list[Any]) -> None:
    """Makes Adam raise its betas to the number of steps of the variable that it updates, `current[-1]`."""
    tf = load_tensorflow()
    if not isinstance(optimizer, tf.compat.v1.train.AdamOptimizer):
        return
    shared_powers = optimizer._get_beta_accumulators

    def powers() -> tuple[Any, Any]:
        if not current:
            shared: tuple[Any, Any] = shared_powers()
            return shared
        count = tf.cast(current[-1] + 1, tf.float32)
        return tf.pow(optimizer._beta1_t, count), tf.pow(optimizer._beta2_t, count)

    optimizer._get_beta_accumulators = powers


def _count_keras_steps(optimizer: Any, current: list[Any]) -> None:
    """Makes a Keras optimizer use each variable's steps for the bias correction; its schedule keeps the global step.

    A gate hides from Keras that the methods accept its precomputed state, so each call computes this state again.
    """
    rate = optimizer._decayed_lr
    global_step = optimizer.iterations

    def rate_at_global_step(dtype: Any) -> Any:
        iterations, optimizer._iterations = optimizer._iterations, global_step
        try:
            return rate(dtype)
        finally:
            optimizer._iterations = iterations

    def with_steps_of_variable(apply: Callable[..., Any]) -> Callable[..., Any]:
        def apply_with_steps(*args: Any, **kwargs: Any) -> Any:
            optimizer._iterations = current[-1] if current else global_step
            try:
                return apply(*args, **kwargs)
            finally:
                optimizer._iterations = global_step

        return apply_with_steps

    optimizer._decayed_lr = rate_at_global_step
    for method in ("_resource_apply_dense", "_resource_apply_sparse_duplicate_indices"):
        setattr(optimizer, method, with_steps_of_variable(getattr(optimizer, method)))


def _is_active(tf: Any, intervals: Sequence[Interval], step: Any) -> Any:
    return tf.reduce_any(tf.stack([interval.contains(step) for interval in intervals]))


def _steps_before(tf: Any, intervals: Sequence[Interval], step: Any) -> Any:
    """Returns the number of steps before `step` that lie in the intervals (int64)."""
    total = tf.zeros([], tf.int64)
    for interval in intervals:
        count = tf.maximum(step - interval.start, 0)
        if interval.length is not None:
            count = tf.minimum(count, interval.length)
        total += count
    return total
