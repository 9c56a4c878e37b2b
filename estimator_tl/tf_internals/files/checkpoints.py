"""Hooks that write checkpoints, and checkpoints made from other checkpoints."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from estimator_tl.compat.versions import has_native_estimator, load_tensorflow
from estimator_tl.files import no_room
from estimator_tl.tf_internals.files.checkpoint_state import CHANGED, latest_checkpoint, listed_checkpoints, write_state
from estimator_tl.tf_internals.graphs.replicas import copies
from estimator_tl.types import Session, Variable

_ASSIGN_BYTES = 32 << 20


def assign(session: Session, variables: Mapping[str, Variable], values: Mapping[str, Any]) -> None:
    """Assigns values to variables in a session, about 32 MB at a time, without adding an op to the graph."""
    pending: dict[Any, tuple[Any, Any]] = {}
    size = 0
    for name, value in values.items():
        variable = variables[name]
        for copy in copies(variable):
            # Feeding the tensor that the initializer assigns adds no op to the graph.
            target = copy.initializer.inputs[1]
            is_shared = any(target.name == tensor.name for tensor, _ in pending.values())
            if is_shared:  # by variables that get different values
                session.run(list(pending), feed_dict=dict(pending.values()))
                pending, size = {}, 0
            pending[copy.initializer] = (target, value)
        size += value.nbytes
        if size >= _ASSIGN_BYTES:
            session.run(list(pending), feed_dict=dict(pending.values()))
            pending, size = {}, 0
    if pending:
        session.run(list(pending), feed_dict=dict(pending.values()))


def extend_checkpoint(model_dir: str, values: Mapping[str, Any]) -> None:
    """Writes a copy of the newest checkpoint of a model_dir with more variables; the old checkpoint stays beside it.

    Args:
      model_dir: a folder with a checkpoint.
      values: arrays by variable name; the checkpoint has no variable with any of these names.
    """
    tf = load_tensorflow()
    reader = tf.train.load_checkpoint(latest_checkpoint(model_dir))
    types = reader.get_variable_to_dtype_map()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.Variable(tf.zeros(shape, types[name]), name=f"v{index}")  # op names may not nest as these names do
            for index, (name, shape) in enumerate(reader.get_variable_to_shape_map().items())
        }
        extra = {name: tf.Variable(tf.zeros(value.shape, value.dtype), name="added") for name, value in values.items()}
        session.run(tf.compat.v1.global_variables_initializer())
        for name, variable in variables.items():
            assign(session, {name: variable}, {name: reader.get_tensor(name)})
        assign(session, extra, values)
        saver = tf.compat.v1.train.Saver({**variables, **extra})
        step = int(reader.get_tensor("global_step"))
        target = saver.save(session, os.path.join(model_dir, CHANGED), global_step=step, write_state=False)
    older = [path for path in listed_checkpoints(model_dir) or () if path != target]
    write_state(model_dir, [*older, target])


def saver_hook(model_dir: str, listeners: Sequence[Any] = (), **when: Any) -> Any:
    """Returns a CheckpointSaverHook that ends training if the disk is full.

    Args:
      model_dir: the folder for the checkpoints.
      listeners: CheckpointSaverListeners that the hook calls when it saves.
      **when: `save_secs` or `save_steps`.
    """
    tf = load_tensorflow()

    class SaverHook(tf.compat.v1.train.CheckpointSaverHook):  # type: ignore[misc,name-defined]
        """Raises OSError if the disk is full; Estimator would take some of TensorFlow's errors for the end of data."""

        def after_create_session(self, session: Session, coord: Any) -> None:
            with _raising_if_disk_is_full(tf, model_dir):
                super().after_create_session(session, coord)

        def _save(self, session: Session, step: int) -> bool:
            with _raising_if_disk_is_full(tf, model_dir):
                return bool(super()._save(session, step))

    return SaverHook(model_dir, listeners=list(listeners), **when)


@contextlib.contextmanager
def _raising_if_disk_is_full(tf: Any, model_dir: str) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        reason = no_room(error)
        if not reason:
            raise
        raise OSError(errno.ENOSPC, reason, model_dir) from error


def aligned_saver_hook(model_dir: str, every: int, listeners: Sequence[Any] = (), steps_per_call: int = 1) -> Any:
    """Returns a `saver_hook` that saves at the multiples of `every`, and at the first and the last step.

    If one session call makes several steps, the hook saves after the call that reaches a multiple.

    TensorFlow's own hook counts from the step at which a session began. It would save a run that was stopped and
    resumed, or that trains phase by phase, at other steps.

    Args:
      model_dir: the folder for the checkpoints.
      every: steps between two checkpoints.
      listeners: CheckpointSaverListeners that the hook calls when it saves.
      steps_per_call: steps that one session call makes.
    """
    tf = load_tensorflow()
    hook = saver_hook(model_dir, listeners, save_steps=every)

    class AlignedTimer(tf.compat.v1.train.SecondOrStepTimer):  # type: ignore[misc,name-defined]
        """Triggers when training has reached a multiple of `every` since the last trigger."""

        def should_trigger_for_step(self, step: int) -> bool:
            last = self.last_triggered_step()
            return last is None or step // every > last // every

    hook._timer = AlignedTimer(every_steps=every)
    hook._set_steps_per_run(steps_per_call)
    return hook


def load_input_hook() -> Any:
    """Returns the class `CheckpointInputPipelineHook`: TensorFlow's own if it has one, else the stand-in."""
    if has_native_estimator():
        return load_tensorflow().data.experimental.CheckpointInputPipelineHook
    from estimator_tl.revival.standins.checkpoint_input_pipeline_hook import CheckpointInputPipelineHook

    return CheckpointInputPipelineHook
