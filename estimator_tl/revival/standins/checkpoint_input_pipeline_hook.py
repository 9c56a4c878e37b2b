"""Stand-in for `tf.data.experimental.CheckpointInputPipelineHook`, which TensorFlow removed in 2.16.

The hook saves the positions of an Estimator's input pipelines in separate
checkpoints, `input[_TASK_INDEX].ckpt-STEP` beside the checkpoints of the model.
Source: the docstring of the class in TensorFlow 2.15.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf
from tensorflow.python.data.experimental.ops import iterator_ops as experimental_iterator_ops
from tensorflow.python.data.ops import iterator_ops, options

_POLICIES = {
    "fail": options.ExternalStatePolicy.FAIL,
    "warn": options.ExternalStatePolicy.WARN,
    "ignore": options.ExternalStatePolicy.IGNORE,
}


def put_back() -> None:
    """Puts the hook where TensorFlow 2.15 had it."""
    public = (tf.data.experimental, tf.compat.v1.data.experimental, tf.compat.v2.data.experimental)
    for module in (*public, experimental_iterator_ops):
        module.CheckpointInputPipelineHook = CheckpointInputPipelineHook


class CheckpointInputPipelineHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Saves and restores the iterators of a training graph, as often as the checkpoints of the model.

    Args:
      estimator: its RunConfig determines the folder, the interval and the task.
      external_state_policy: how to treat state outside the iterator, such as random seeds: "fail" (default), "warn" or
        "ignore".

    Raises:
      ValueError: the policy is unknown.
    """

    def __init__(self, estimator: Any, external_state_policy: str | None = None):
        policy = external_state_policy or "fail"
        if policy not in _POLICIES:
            raise ValueError(f"external_state_policy must be one of {', '.join(_POLICIES)}, got {policy!r}.")
        config = estimator.config
        prefix = f"input_{config.task_type}_{config.task_id}" if config.num_worker_replicas > 1 else "input"
        self._policy = _POLICIES[policy]
        self._folder = estimator.model_dir
        self._path = os.path.join(estimator.model_dir, f"{prefix}.ckpt")
        self._state_name = f"checkpoint_{prefix}"
        self._timer = tf.compat.v1.train.SecondOrStepTimer(
            every_secs=config.save_checkpoints_secs, every_steps=config.save_checkpoints_steps
        )
        self._global_step: Any = None
        self._saver: Any = None
        self._fresh = False

    def begin(self) -> None:
        """Creates a saver for all iterators of the graph."""
        self._global_step = tf.compat.v1.train.get_global_step()
        iterators = tf.compat.v1.get_collection(iterator_ops.GLOBAL_ITERATORS)
        self._saver = tf.compat.v1.train.Saver(
            [
                iterator_ops._IteratorSaveable(iterator, iterator.name, external_state_policy=self._policy)
                for iterator in iterators
            ],
            sharded=True,
        )

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Records that the iterators of this session are at their start."""
        self._fresh = True

    def before_run(self, run_context: Any) -> Any:
        """Restores the state, or saves the first one; all hooks have now initialized their iterators."""
        if self._fresh:
            self._fresh = False
            checkpoint = tf.train.latest_checkpoint(self._folder, latest_filename=self._state_name)
            if checkpoint:
                self._saver.restore(run_context.session, checkpoint)
            else:
                self._save(run_context.session)
        return tf.compat.v1.train.SessionRunArgs(self._global_step)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Saves if the timer triggers."""
        if self._timer.should_trigger_for_step(run_values.results + 1):
            self._save(run_context.session)

    def end(self, session: Any) -> None:
        """Saves the last state."""
        if session.run(self._global_step) != self._timer.last_triggered_step():
            self._save(session)

    def _save(self, session: Any) -> None:
        step = session.run(self._global_step)
        self._timer.update_last_triggered_step(step)
        self._saver.save(
            session, self._path, global_step=step, latest_filename=self._state_name, write_meta_graph=False
        )
