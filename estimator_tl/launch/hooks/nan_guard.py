"""The end of a training whose numbers are no longer finite."""

from __future__ import annotations

import collections
import re
from typing import Any, Literal

import numpy as np

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.launch.hooks import nan_search
from estimator_tl.optimization.training import GRADIENTS
from estimator_tl.tf_internals.files.checkpoint_state import checkpoints
from estimator_tl.tf_internals.graphs.ops import ancestors

_ITERATOR = "IteratorGetNext"
_INPUTS = (_ITERATOR, "Placeholder")
_RATE = "lower --learning_rate, or warm it up"
Where = Literal["alone", "cluster", "tpu"]
_NOT_FOUND = {
    "alone": f"nothing is wrong when the step's data is run again, so it is by chance, e.g. dropout; {_RATE}.",
    "cluster": "nothing is wrong with this task's part of the batch; see what the other tasks say.",
    "tpu": f"the variables are finite, and a TPU lets nobody look into its steps; {_RATE}, or look at the data.",
}


class NanGuardHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Ends training when the loss is not finite, and says what went wrong first.

    It belongs before the hook that saves checkpoints, and its `listener` to that hook, so that neither a step that
    went wrong is saved nor variables that do so with a loss that is still finite. The loss is one that is computed
    anyway. What an iterator gave is kept for two steps: when a loss is seen, the update with it has been made, so the
    guard looks at the same batches again, with the values of the last checkpoint where the variables are gone.

    In a cluster each task has one, which looks at its own part of the batch; of a loss that is summed over tasks it
    looks at what this task adds. On a TPU, whose steps nobody looks into, it names variables only.
    """

    def __init__(self, loss: Any = None, model_dir: str | None = None, where: Where = "alone"):
        """Prepares the hook.

        Args:
          loss: a scalar tensor; by default the last of the collection LOSSES, which is where Estimator puts the whole
            one, under a strategy that of all replicas.
          model_dir: with the checkpoints of the run; by default those that the graph's first Saver remembers.
          where: what trains: one process, a task of a cluster, or a TPU.
        """
        self._given, self._model_dir, self._where = loss, model_dir, where
        self._loss, self._step = loss, None
        self._variables: list[Any] = []
        self._own: list[Any] = []
        self._inputs: list[Any] = []
        self._batches: collections.deque[dict[Any, Any]] = collections.deque(maxlen=2)

    @property
    def listener(self) -> Any:
        """A CheckpointSaverListener that keeps non-finite variables from being saved."""
        return _Listener(self)

    def begin(self) -> None:
        graph = tf.compat.v1.get_default_graph()
        losses = graph.get_collection(tf.compat.v1.GraphKeys.LOSSES)
        if self._given is None and not losses:
            raise UserError("NanGuardHook finds no loss in tf.compat.v1.GraphKeys.LOSSES; give it loss=, a tensor.")
        self._loss = losses[-1] if self._given is None else self._given
        self._step = tf.compat.v1.train.get_global_step()
        self._variables = tf.compat.v1.global_variables()
        self._own = [] if self._where == "tpu" else nan_search.before_collectives(self._loss)
        needed = ancestors(self._own)
        self._inputs = [tensor for op in needed if op.type == _ITERATOR for tensor in op.outputs]
        self._batches.clear()

    def before_run(self, run_context: Any) -> Any:
        return tf.compat.v1.train.SessionRunArgs((self._loss, self._inputs))

    def after_run(self, run_context: Any, run_values: Any) -> None:
        loss, batch = run_values.results
        self._batches.append(dict(zip(self._inputs, batch)))
        if not np.isfinite(loss):
            self.fail(run_context.session, f"the loss is {float(loss)}")

    def check_variables(self, session: Any) -> None:
        """Raises UserError where a variable is not finite."""
        if nan_search.bad_variables(session, self._variables):
            self.fail(session, "variables are not finite")

    def fail(self, session: Any, seen: str) -> None:
        """Raises UserError with what went wrong first. Args: seen: what shows that something did."""
        step = int(session.run(self._step))
        bad = nan_search.bad_variables(session, self._variables)
        cause = self._cause_in_forward(session, bad)
        saved, is_newest = self._restore_good(session)
        if cause is None and bad and saved:
            cause = self._cause_in_forward(session, []) or self._cause_in_gradients(session)
        if cause is None:
            cause = _variables(bad, bool(self._batches)) if bad else _NOT_FOUND[self._where]
        if saved:
            how = "training goes on from there." if is_newest else "remove those after it to go on from there."
            cause += f" The checkpoint {saved} is good; {how}"
        raise UserError(f"training failed at step {step}, {seen}: {cause}")

    def _restore_good(self, session: Any) -> tuple[str | None, bool]:
        """Restores the newest checkpoint that is finite, as the session makes no step more; says if it is the last."""
        for saver in self._loss.graph.get_collection(tf.compat.v1.GraphKeys.SAVERS)[:1]:
            paths = checkpoints(self._model_dir) if self._model_dir else list(saver.last_checkpoints)
            for path in reversed(paths):
                saver.restore(session, path)
                if not nan_search.bad_variables(session, self._variables):
                    return path, path == paths[-1]
        return None, False

    def _feeds(self) -> list[dict[Any, Any]]:
        return list(reversed(self._batches)) or [{}]

    def _cause_in_forward(self, session: Any, bad: list[str]) -> str | None:
        """Returns what is wrong with the data or an operation, which may hide behind variables that are bad by now."""
        operation = None
        if not self._own:
            return None
        for feed in self._feeds():
            for tensor, value in nan_search.origins(session, self._own, feed):
                if tensor.op.type.startswith(_INPUTS):
                    return _data(tensor, value)
                if not any(source.op.name in bad for source in (*tensor.op.inputs, tensor)):
                    operation = operation or _operation(tensor)
        return operation

    def _cause_in_gradients(self, session: Any) -> str | None:
        gradients = self._loss.graph.get_collection(GRADIENTS) if self._own else []
        values = {getattr(g.value, "values", g.value).name: g for g in gradients}
        targets = [getattr(g.value, "values", g.value) for g in gradients]
        for feed in self._feeds():
            found = nan_search.origins(session, targets, feed)
            if found:
                hit = [target for target in targets if not nan_search.finite(session.run(target, feed))]
                names = [values[target.name].variable.op.name for target in hit]
                tensor = found[0][0]
                return (
                    f"the loss is finite, but the gradients of {len(names)} variables are not (first {names[0]}), from "
                    f"{tensor.name} ({tensor.op.type}) in layer {_layer(tensor.op.name)} on; keep what that layer "
                    "takes away from where its slope is infinite, e.g. a square root from 0."
                )
        return None


class _Listener(tf.compat.v1.train.CheckpointSaverListener):  # type: ignore[misc]
    def __init__(self, guard: NanGuardHook):
        self._guard = guard

    def before_save(self, session: Any, global_step_value: int) -> None:
        self._guard.check_variables(session)


def _data(tensor: Any, value: Any) -> str:
    value = np.atleast_1d(np.asarray(value, np.float32))
    rows = np.flatnonzero(~np.isfinite(value).reshape(len(value), -1).all(axis=1))
    listed = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    return (
        f"the data itself is not finite, in {len(rows)} of the {len(value)} examples of the batch (from 0: {listed}; "
        f"tensor {tensor.name}, shape {list(value.shape)}); look at these examples and at what decodes them."
    )


def _operation(tensor: Any) -> str:
    return (
        f"{tensor.name} ({tensor.op.type}) in layer {_layer(tensor.op.name)} is the first that is not finite, its "
        f"inputs are; {_RATE}, or keep what that layer takes in its range, e.g. a logarithm away from 0."
    )


def _variables(bad: list[str], moved: bool) -> str:
    named = f"{len(bad)} variables are not finite, first {bad[0]} in layer {_layer(bad[0])}"
    if moved:
        return f"{named}, by an update with their gradients; {_RATE}."
    return f"{named}, before the first step; look at the source or the checkpoint that they are from."


def _layer(name: str) -> str:
    """Returns the name scope of an operation, for that of a gradient the scope of what it is the gradient of."""
    name = re.sub(r"\breplica_\d+/", "", name)
    backward = re.match(r"gradients(?:_\d+)?/(.*)_grad/", name)
    name = backward[1] if backward else name
    return name.rpartition("/")[0] or name
