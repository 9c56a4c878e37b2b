"""The contestants of one tuning: hand-written, estimator_tl with this tuning, and two graphs of a phased run."""

from __future__ import annotations

import functools
import hashlib
import io
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from throughput_contestants import Task
from throughput_pacing import Pace, PaceHook
from tuning_cost_cases import PHASE_STEPS, Case, phased

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.config import TrainingSpec
from estimator_tl.launch.hooks.progress import ProgressHook
from estimator_tl.launch.run.session import local_config
from estimator_tl.tuning import Policy

BY_HAND, ALONE, ONE_PHASE, GATED = "hand-written", "estimator_tl", "phase alone", "gated"
_LEARNING_RATE = 1e-3
_NO_CHECKPOINTS = 1 << 30


class Group:
    """The contestants of one case."""

    def __init__(self, task: Task, cases: Sequence[Case], number: int, graphs: str):
        """Creates the contestants, untrained.

        Args:
          task: the training task.
          cases: all cases.
          number: index of the case of this group.
          graphs: graphs of the phased run that take part: both, alone (only the graph of the phase) or none.
        """
        self._task = task
        self._case = cases[number]
        self._number = number
        self._graphs = graphs
        self._phased = phased(cases)
        self._hooks: dict[str, _MovedHook] = {}

    def contestants(self) -> dict[str, Callable[[Pace], None]]:
        """Returns the contestants by name; contestants to compare are next to each other."""
        first = self._number * PHASE_STEPS
        trained: dict[str, Callable[[Pace], None]] = {
            BY_HAND: self._train_by_hand,
            ALONE: functools.partial(self._train, ALONE, self._case.policy, 0, {}),
        }
        if self._graphs != "none":
            only = {"only_phase": self._number}
            trained[ONE_PHASE] = functools.partial(self._train, ONE_PHASE, self._phased, first, only)
        if self._graphs == "both":
            trained[GATED] = functools.partial(self._train, GATED, self._phased, first, {})
        return trained

    def moved(self) -> int:
        """Returns the number of variables of the backbone that training has changed.

        Raises:
          RuntimeError: the contestants changed different variables, or variables that the tuning does not select.
        """
        for name, hook in self._hooks.items():
            stray = (hook.moved ^ self._hooks[BY_HAND].moved) | (hook.moved - self._case.names)
            if stray:
                raise RuntimeError(f"{self._case.policy}, {name}: not the same variables are trained: {sorted(stray)}")
        return len(self._hooks[BY_HAND].moved)

    def _train_by_hand(self, pace: Pace) -> None:
        """Trains a model_fn that is written by hand for this model and tuning."""
        task, names = self._task, self._case.names

        def model_fn(features: Any, labels: Any, mode: str) -> Any:
            built = task.network.build(features)
            pooled = task.source.pool(built.outputs)
            kernel = tf.compat.v1.get_variable("kernel", [pooled.shape[-1], task.classes])
            bias = tf.compat.v1.get_variable("bias", [task.classes], initializer=tf.compat.v1.zeros_initializer())
            loss = tf.compat.v1.losses.sparse_softmax_cross_entropy(labels, tf.linalg.matmul(pooled, kernel) + bias)
            if names and built.losses:
                loss += tf.add_n(built.losses)
            train_op = tf.compat.v1.train.AdamOptimizer(_LEARNING_RATE).minimize(
                loss,
                global_step=tf.compat.v1.train.get_global_step(),
                var_list=[kernel, bias, *(variable for variable in built.trainable if variable.op.name in names)],
            )
            return estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, scaffold=_scaffold(built.init_fn))

        folder = tempfile.mkdtemp(dir=task.folder)
        config = estimator.RunConfig(folder, save_checkpoints_steps=_NO_CHECKPOINTS)
        model = estimator.Estimator(model_fn, folder, config)
        model.train(task.dataset, max_steps=pace.total_steps, hooks=self._own_hooks(BY_HAND, pace))

    def _train(self, name: str, tuning: Policy, first: int, only: dict[str, int], pace: Pace) -> None:
        """Trains like the command ``train``, including its progress line, from step `first` on."""
        task = self._task
        model_fn = etl.make_model_fn(
            backbone=task.source,
            head=etl.heads.classifier(n_classes=task.classes),
            tuning=tuning,
            optimizer=etl.optimizers.adam(_LEARNING_RATE),
            backbone_dropout=False,  # the hand-written model_fn also calls the backbone for inference
            show_plan=lambda text: None,
            **only,
        )
        folder = tempfile.mkdtemp(dir=task.folder)
        last = first + pace.total_steps
        training = TrainingSpec(train_steps=last, batch_size=task.batch_size, save_checkpoints_steps=_NO_CHECKPOINTS)
        config = local_config(folder, training)
        progress = ProgressHook(last, task.batch_size, stream=io.StringIO())
        model = estimator.Estimator(model_fn, folder, config, params={})
        model.train(task.dataset, max_steps=last, hooks=[_BeginAt(first), progress, *self._own_hooks(name, pace)])

    def _own_hooks(self, name: str, pace: Pace) -> list[Any]:
        self._hooks[name] = _MovedHook([variable.name for variable in self._task.source.structure.variables])
        return [self._hooks[name], PaceHook(pace)]


class _MovedHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Records which variables of the backbone a run trains.

    If gradients are tiny, as in a network without pretrained values, rounding may
    leave a variable unchanged. Its momentum changes even then, so the hook compares
    both.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        self.moved: set[str] = set()

    def begin(self) -> None:
        known = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
        # Both ways of loading keep the names of the source; otherwise this raises a KeyError.
        self._variables = {name: (known[name], known.get(f"{name}/Adam", ())) for name in self._names}

    def after_create_session(self, session: Any, coord: Any) -> None:
        self._before = self._digests(session)

    def end(self, session: Any) -> None:
        after = self._digests(session)
        self.moved = {name for name, digests in after.items() if digests != self._before[name]}

    def _digests(self, session: Any) -> dict[str, list[bytes]]:
        values = session.run(self._variables)
        return {
            name: [hashlib.sha256(np.asarray(value).tobytes()).digest() for value in pair]
            for name, pair in values.items()
        }


class _BeginAt(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Sets the global step of a new run, as if it had made the earlier steps."""

    def __init__(self, step: int):
        self._first = step

    def begin(self) -> None:
        self._step = tf.compat.v1.train.get_global_step()

    def after_create_session(self, session: Any, coord: Any) -> None:
        initializer = self._step.initializer
        session.run(initializer, {initializer.inputs[1]: self._first})


def _scaffold(init_fn: Callable[[Any], None] | None) -> Any:
    return init_fn and tf.compat.v1.train.Scaffold(init_fn=lambda scaffold, session: init_fn(session))
