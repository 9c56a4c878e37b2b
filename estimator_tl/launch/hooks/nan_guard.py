"""Stops training when the loss or a variable becomes NaN or infinite."""

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
from estimator_tl.types import RunContext, RunValues, Session, Tensor

_ITERATOR = "IteratorGetNext"
_INPUTS = (_ITERATOR, "Placeholder")
_RATE = "lower --learning_rate, or warm it up"
Where = Literal["alone", "cluster", "tpu"]
_NOT_FOUND = {
    "alone": f"a second run of the same batch gives no error, so it was chance, e.g. dropout; {_RATE}.",
    "cluster": "nothing is wrong with this task's part of the batch; look at the errors of the other tasks.",
    "tpu": f"the variables are finite, and the steps of a TPU cannot be inspected; {_RATE}, or check the data.",
}


class NanGuardHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Stops training when the loss is NaN or infinite, and reports the first cause.

    Place the hook before the hook that saves checkpoints, and give its `listener` to that hook. Then neither a bad step
    is saved, nor bad variables with a loss that is still finite. The guard only reads a loss that the step computes
    anyway. It keeps the batches of the last two steps, because a bad loss is seen only after its update. To find the
    cause, it runs these batches again; if the variables are bad too, with the values of the last checkpoint.

    In a cluster each task has its own guard, which looks at the task's part of the batch and at its share of a loss
    that is summed over tasks. The steps of a TPU cannot be inspected, so there the guard names variables only.
    """

    def __init__(self, loss: Any = None, model_dir: str | None = None, where: Where = "alone"):
        """Prepares the hook.

        Args:
          loss: a scalar tensor; by default the last of the collection LOSSES, where Estimator puts the total loss (of
            all replicas under a strategy).
          model_dir: the folder with the checkpoints; by default the guard uses the list of the graph's first Saver.
          where: what trains: one process (alone), a task of a cluster, or a TPU.
        """
        self._loss_argument, self._model_dir, self._where = loss, model_dir, where
        self._loss, self._step = loss, None
        self._variables: list[Any] = []
        self._targets: list[Any] = []
        self._inputs: list[Any] = []
        self._batches: collections.deque[dict[Any, Any]] = collections.deque(maxlen=2)

    @property
    def listener(self) -> Any:
        """A CheckpointSaverListener that raises UserError before NaN or infinite variables are saved."""
        return _Listener(self)

    def begin(self) -> None:
        graph = tf.compat.v1.get_default_graph()
        losses = graph.get_collection(tf.compat.v1.GraphKeys.LOSSES)
        if self._loss_argument is None and not losses:
            raise UserError("NanGuardHook finds no loss in tf.compat.v1.GraphKeys.LOSSES; give it loss=, a tensor.")
        self._loss = losses[-1] if self._loss_argument is None else self._loss_argument
        self._step = tf.compat.v1.train.get_global_step()
        self._variables = tf.compat.v1.global_variables()
        self._targets = [] if self._where == "tpu" else nan_search.before_collectives(self._loss)
        needed = ancestors(self._targets)
        self._inputs = [tensor for op in needed if op.type == _ITERATOR for tensor in op.outputs]
        self._batches.clear()

    def before_run(self, run_context: RunContext) -> Any:
        return tf.compat.v1.train.SessionRunArgs((self._loss, self._inputs))

    def after_run(self, run_context: RunContext, run_values: RunValues) -> None:
        loss, batch = run_values.results
        self._batches.append(dict(zip(self._inputs, batch)))
        if not np.isfinite(loss):
            self.fail(run_context.session, f"the loss is {float(loss)}")

    def check_variables(self, session: Session) -> None:
        """Raises UserError if a variable is NaN or infinite."""
        if nan_search.bad_variables(session, self._variables):
            self.fail(session, "variables are NaN or infinite")

    def fail(self, session: Session, symptom: str) -> None:
        """Raises UserError with the first cause. Args: session: of training. symptom: the beginning of the message."""
        step = int(session.run(self._step))
        bad = nan_search.bad_variables(session, self._variables)
        cause = self._cause_in_forward(session, bad)
        checkpoint, is_newest = self._restore_good(session)
        if cause is None and bad and checkpoint:
            cause = self._cause_in_forward(session, []) or self._cause_in_gradients(session)
        if cause is None and bad:
            cause = _variables(bad, bool(self._batches))
        cause = cause or _NOT_FOUND[self._where]
        if checkpoint:
            remedy = "training goes on from there." if is_newest else "remove the later ones to go on from there."
            cause += f" The checkpoint {checkpoint} is good; {remedy}"
        raise UserError(f"training failed at step {step}, {symptom}: {cause}")

    def _restore_good(self, session: Session) -> tuple[str | None, bool]:
        """Restores the newest checkpoint without NaN or infinity; training has stopped, so the session is free.

        Returns:
          The path, and whether it is the newest checkpoint; None and False if there is no good checkpoint.
        """
        for saver in self._loss.graph.get_collection(tf.compat.v1.GraphKeys.SAVERS)[:1]:
            paths = checkpoints(self._model_dir) if self._model_dir else list(saver.last_checkpoints)
            for path in reversed(paths):
                saver.restore(session, path)
                if not nan_search.bad_variables(session, self._variables):
                    return path, path == paths[-1]
        return None, False

    def _feeds(self) -> list[dict[Any, Any]]:
        return list(reversed(self._batches)) or [{}]

    def _cause_in_forward(self, session: Session, bad: list[str]) -> str | None:
        """Returns the cause in the data or else in an operation; None if bad variables may be the cause."""
        cause = None
        if not self._targets:
            return None
        for feed in self._feeds():
            for tensor, value in nan_search.origins(session, self._targets, feed):
                if tensor.op.type.startswith(_INPUTS):
                    return _data(tensor, value)
                if not any(other.op.name in bad for other in (*tensor.op.inputs, tensor)):
                    cause = cause or _operation(tensor)
        return cause

    def _cause_in_gradients(self, session: Session) -> str | None:
        """Returns the cause in the operations that compute gradients; None if all gradients are finite."""
        gradients = self._loss.graph.get_collection(GRADIENTS) if self._targets else []
        values = {getattr(g.value, "values", g.value).name: g for g in gradients}
        targets = [getattr(g.value, "values", g.value) for g in gradients]
        for feed in self._feeds():
            origins = nan_search.origins(session, targets, feed)
            if origins:
                bad = [target for target in targets if not nan_search.finite(session.run(target, feed))]
                names = [values[target.name].variable.op.name for target in bad]
                tensor = origins[0][0]
                return (
                    f"the loss is finite, but the gradients of {len(names)} variables are not (first {names[0]}), "
                    f"starting at {tensor.name} ({tensor.op.type}) in layer {_layer(tensor.op.name)}; keep the input "
                    "of that layer away from points of infinite slope, e.g. the input of a square root away from 0."
                )
        return None


class _Listener(tf.compat.v1.train.CheckpointSaverListener):  # type: ignore[misc]
    def __init__(self, guard: NanGuardHook):
        self._guard = guard

    def before_save(self, session: Session, global_step_value: int) -> None:
        self._guard.check_variables(session)


def _data(tensor: Tensor, value: Any) -> str:
    value = np.atleast_1d(np.asarray(value, np.float32))
    rows = np.flatnonzero(~np.isfinite(value).reshape(len(value), -1).all(axis=1))
    positions = ", ".join(map(str, rows[:5])) + ", ..." * (len(rows) > 5)
    return (
        f"the data itself is NaN or infinite, in {len(rows)} of the {len(value)} examples of the batch (from 0: "
        f"{positions}; tensor {tensor.name}, shape {list(value.shape)}); check these examples and their decoding."
    )


def _operation(tensor: Tensor) -> str:
    return (
        f"{tensor.name} ({tensor.op.type}) in layer {_layer(tensor.op.name)} is NaN or infinite, although its inputs "
        f"are finite; {_RATE}, or keep the layer's input in its range, e.g. the input of a logarithm above 0."
    )


def _variables(bad: list[str], has_stepped: bool) -> str:
    symptom = f"{len(bad)} variables are NaN or infinite, first {bad[0]} in layer {_layer(bad[0])}"
    if has_stepped:
        return f"{symptom}, after an update with their gradients; {_RATE}."
    return f"{symptom}, before the first step; check the backbone or the checkpoint that they come from."


def _layer(name: str) -> str:
    """Returns the name scope of an operation; for a gradient op the scope of the forward operation."""
    name = re.sub(r"\breplica_\d+/", "", name)
    gradient = re.match(r"gradients(?:_\d+)?/(.*)_grad/", name)
    if gradient:
        name = gradient[1]
    return name.rpartition("/")[0] or name
