"""Logs the norms of gradients and updates for each group of variables."""

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
from estimator_tl.types import RunContext, RunValues, Session, Tensor

_HEAD = "head"


class NormsHook(CountingHook):
    """Writes ``norms/gradient/GROUP`` and ``norms/update_ratio/GROUP``, ||dw|| / ||w||, every N global steps.

    The gradient is the applied one: the sum over the replicas of a strategy. Variables that the phase does not train
    count as 0. The hook costs nothing in other steps; in a logged step it reads the trained variables twice.

    On parameter servers only the chief has the hook. It counts the chief's steps and shows the chief's gradients, but
    the update includes what other workers add between the two reads. Under MultiWorkerMirroredStrategy each task needs
    the hook, as a logged step sums the gradients over all tasks once more.
    """

    def __init__(self, every: int, model_dir: str | None, groups: Mapping[str, str], with_tasks: bool = False):
        """Prepares the hook.

        Args:
          every: global steps between entries.
          model_dir: the folder of the summaries; with None the hook takes part in the sums and writes nothing.
          groups: the group of each variable by name, e.g. `SourceVariable.group`; all others belong to the head.
          with_tasks: whether other tasks train the same step together with this task.
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
        variables = [*graph.get_collection(TRAINABLE), *(gradient.variable for gradient in gradients)]
        # The copies of a variable under a strategy are equal, so one is enough.
        self._variables = {v.op.name: copies(v)[0] for v in variables}
        self._gradient_norms = {
            group: self._norm([gradient for gradient in gradients if gradient.variable.op.name in names])
            for group, names in self._members().items()
        }
        self._writer = tf.compat.v1.summary.FileWriterCache.get(self._model_dir) if self._model_dir else None

    def before_run(self, run_context: RunContext) -> Any:
        if (self.step + 1) % self._every:
            return None
        self._before = run_context.session.run(self._variables) if self._writer else {}
        return tf.compat.v1.train.SessionRunArgs(self._gradient_norms)

    def after_run(self, run_context: RunContext, run_values: RunValues) -> None:
        super().after_run(run_context, run_values)
        if not run_values.results or not self._writer:
            return
        after = run_context.session.run(self._variables)
        before, self._before = self._before, {}  # frees arrays as large as the model
        summary = tf.compat.v1.Summary()
        for group, names in self._members().items():
            summary.value.add(tag=f"norms/gradient/{group}", simple_value=run_values.results[group])
            size = _size(before[name] for name in names)
            update = _size(after[name] - before[name] for name in names)
            if size:
                summary.value.add(tag=f"norms/update_ratio/{group}", simple_value=update / size)
            elif not update:  # an update from all zeros has no ratio, so it gets no entry
                summary.value.add(tag=f"norms/update_ratio/{group}", simple_value=0.0)
        self._writer.add_summary(summary, int(run_context.session.run(self._global_step)))

    def end(self, session: Session) -> None:
        if self._writer:
            self._writer.flush()

    def _members(self) -> dict[str, list[str]]:
        members: dict[str, list[str]] = {}
        for name in self._variables:
            members.setdefault(self._groups.get(name, _HEAD), []).append(name)
        return members

    def _norm(self, gradients: Iterable[Gradient]) -> Any:
        """Returns a scalar tensor: the norm of the gradients as they are applied."""
        replicas: dict[str, list[Gradient]] = {}
        for gradient in gradients:
            replicas.setdefault(gradient.variable.op.name, []).append(gradient)
        squares = [tf.zeros([])]
        for shares in replicas.values():
            applied = self._sum([tf.cast(tf.convert_to_tensor(share.value), tf.float32) for share in shares])
            square = tf.reduce_sum(tf.square(applied))
            if shares[0].moves is not None:
                square = tf.where(shares[0].moves, square, 0.0)
            squares.append(square)
        return tf.sqrt(tf.add_n(squares))


def _over_tasks(tensors: Sequence[Tensor]) -> Any:
    """Returns the sum over all replicas of the current strategy. Args: tensors: one for each replica of this task."""

    def value() -> Any:
        replica = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
        return tf.identity(tensors[int(replica) % len(tensors)])  # replicas are numbered task by task

    strategy = tf.distribute.get_strategy()
    return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(value), axis=None)


def _size(arrays: Iterable[Any]) -> float:
    return math.sqrt(sum(float(np.sum(np.square(array, dtype=np.float64))) for array in arrays))
