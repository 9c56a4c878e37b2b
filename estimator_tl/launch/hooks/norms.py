"""How large gradients and updates are, group by group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from estimator_tl.compat import tf
from estimator_tl.launch.hooks.counting import CountingHook
from estimator_tl.optimization.training import GRADIENTS, Gradient
from estimator_tl.tf_internals.graphs.replicas import copies
from estimator_tl.tuning.collections import TRAINABLE

_HEAD = "head"


class NormsHook(CountingHook):
    """Writes ``norms/gradient/GROUP`` and ``norms/update_ratio/GROUP``, ||dw|| / ||w||, every so many global steps.

    The gradient is the one that is applied: the sum over the replicas of a strategy. Variables that a phase leaves
    alone count as 0. Steps in between cost nothing; a due one reads the trained variables twice.

    On parameter servers it belongs to the chief, whose steps it counts and whose gradients it shows; what other workers
    add between its two reads is part of the update. Under MultiWorkerMirroredStrategy each task needs one, as they sum
    gradients together, one more time in the steps that are due.
    """

    def __init__(self, every: int, model_dir: str | None, groups: Mapping[str, str], with_tasks: bool = False):
        """Prepares the hook.

        Args:
          every: global steps.
          model_dir: where the summaries go; None takes part in the sums and writes nothing.
          groups: by name of a variable, e.g. `SourceVariable.group`; those not named are the head's.
          with_tasks: whether the replicas of other tasks share each step.
        """
        super().__init__()
        self._every = every
        self._model_dir = model_dir
        self._groups = groups
        self._sum = _over_tasks if with_tasks else tf.add_n
        self._variables: dict[str, Any] = {}
        self._gradient_norms: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._writer: Any = None

    def begin(self) -> None:
        super().begin()
        graph = tf.compat.v1.get_default_graph()
        gradients = graph.get_collection(GRADIENTS)
        trained = [*graph.get_collection(TRAINABLE), *(gradient.variable for gradient in gradients)]
        # One of the copies of a strategy, which are equal.
        self._variables = {v.op.name: copies(v)[0] for v in trained}
        self._gradient_norms = {
            group: self._norm([gradient for gradient in gradients if gradient.variable.op.name in names])
            for group, names in self._members().items()
        }
        self._writer = tf.compat.v1.summary.FileWriterCache.get(self._model_dir) if self._model_dir else None

    def before_run(self, run_context: Any) -> Any:
        if (self.step + 1) % self._every:
            return None
        self._before = run_context.session.run(self._variables) if self._writer else {}
        return tf.compat.v1.train.SessionRunArgs(self._gradient_norms)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        super().after_run(run_context, run_values)
        if not run_values.results or not self._writer:
            return
        after = run_context.session.run(self._variables)
        before, self._before = self._before, {}  # as large as the model
        summary = tf.compat.v1.Summary()
        for group, names in self._members().items():
            summary.value.add(tag=f"norms/gradient/{group}", simple_value=run_values.results[group])
            size = _size(before[name] for name in names)
            update = _size(after[name] - before[name] for name in names)
            if size or not update:  # there is no ratio to zeros
                summary.value.add(tag=f"norms/update_ratio/{group}", simple_value=update / size if size else 0.0)
        self._writer.add_summary(summary, int(run_context.session.run(self._global_step)))

    def end(self, session: Any) -> None:
        if self._writer:
            self._writer.flush()

    def _members(self) -> dict[str, list[str]]:
        members: dict[str, list[str]] = {}
        for name in self._variables:
            members.setdefault(self._groups.get(name, _HEAD), []).append(name)
        return members

    def _norm(self, gradients: Iterable[Gradient]) -> Any:
        """Returns the scalar tensor of the norm of what is applied to some variables."""
        replicas: dict[str, list[Gradient]] = {}
        for gradient in gradients:
            replicas.setdefault(gradient.variable.op.name, []).append(gradient)
        squares = [tf.zeros([])]
        for own in replicas.values():
            applied = self._sum([tf.cast(tf.convert_to_tensor(gradient.value), tf.float32) for gradient in own])
            square = tf.reduce_sum(tf.square(applied))
            squares.append(square if own[0].moves is None else tf.where(own[0].moves, square, 0.0))
        return tf.sqrt(tf.add_n(squares))


def _over_tasks(own: Sequence[Any]) -> Any:
    """Returns the sum over all replicas of the current strategy. Args: own: the tensors of those in this task."""

    def value() -> Any:
        replica = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
        return tf.identity(own[int(replica) % len(own)])  # replicas are numbered task by task

    strategy = tf.distribute.get_strategy()
    return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(value), axis=None)


def _size(arrays: Iterable[Any]) -> float:
    return math.sqrt(sum(float(np.sum(np.square(array, dtype=np.float64))) for array in arrays))
