"""Writing checkpoints: hooks, and checkpoints made from others."""

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

_ASSIGN_BYTES = 32 << 20


def assign(session: Any, variables: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Assigns values in a session, in parts of some 32 MB, without adding an op to its graph."""
    pending: dict[Any, tuple[Any, Any]] = {}
    size = 0
    for name, value in values.items():
        variable = variables[name]
        for copy in copies(variable):
            # Feeding the initializer's own value tensor adds no op to the graph.
            fed = copy.initializer.inputs[1]
            shared = any(fed.name == tensor.name for tensor, _ in pending.values())
            if shared:  # by variables whose values are not the same
                session.run(list(pending), feed_dict=dict(pending.values()))
                pending, size = {}, 0
            pending[copy.initializer] = (fed, value)
        size += value.nbytes
        if size >= _ASSIGN_BYTES:
            session.run(list(pending), feed_dict=dict(pending.values()))
            pending, size = {}, 0
    if pending:
        session.run(list(pending), feed_dict=dict(pending.values()))


def extend_checkpoint(model_dir: str, values: Mapping[str, Any]) -> None:
    """Writes the newest checkpoint of a model_dir anew with further variables; the old one stays beside it.

    Args:
      model_dir: holds a checkpoint.
      values: arrays by variable name, of names that the checkpoint does not have.
    """
    tf = load_tensorflow()
    reader = tf.train.load_checkpoint(latest_checkpoint(model_dir))
    types = reader.get_variable_to_dtype_map()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.Variable(tf.zeros(shape, types[name]), name=f"v{index}")  # names of ops may not nest as these do
            for index, (name, shape) in enumerate(reader.get_variable_to_shape_map().items())
        }
        added = {name: tf.Variable(tf.zeros(value.shape, value.dtype), name="added") for name, value in values.items()}
        session.run(tf.compat.v1.global_variables_initializer())
        for name, variable in variables.items():
            assign(session, {name: variable}, {name: reader.get_tensor(name)})
        assign(session, added, values)
        saver = tf.compat.v1.train.Saver({**variables, **added})
        step = int(reader.get_tensor("global_step"))
        made = saver.save(session, os.path.join(model_dir, CHANGED), global_step=step, write_state=False)
    listed = [path for path in listed_checkpoints(model_dir) or () if path != made]
    write_state(model_dir, [*listed, made])


def saver_hook(model_dir: str, listeners: Sequence[Any] = (), **when: Any) -> Any:
    """Returns a CheckpointSaverHook that ends training where the disk is full.

    Args:
      model_dir: where to.
      listeners: of what is saved.
      **when: `save_secs` or `save_steps`.
    """
    tf = load_tensorflow()

    class SaverHook(tf.compat.v1.train.CheckpointSaverHook):  # type: ignore[misc,name-defined]
        """Raises OSError where there is no room: some of TensorFlow's errors for it would count as the end of data."""

        def after_create_session(self, session: Any, coord: Any) -> None:
            with _ending_without_room(tf, model_dir):
                super().after_create_session(session, coord)

        def _save(self, session: Any, step: int) -> bool:
            with _ending_without_room(tf, model_dir):
                return bool(super()._save(session, step))

    return SaverHook(model_dir, listeners=list(listeners), **when)


@contextlib.contextmanager
def _ending_without_room(tf: Any, model_dir: str) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        reason = no_room(error)
        if not reason:
            raise
        raise OSError(errno.ENOSPC, reason, model_dir) from error


def aligned_saver_hook(model_dir: str, every: int, listeners: Sequence[Any] = (), lot: int = 1) -> Any:
    """Returns a `saver_hook` that saves at the multiples of `every`, beside the first step and the last.

    Where one session call makes a lot of steps, it saves after the call in which a multiple was reached.

    TensorFlow's own counts from where a session began, so that a run which stops
    and goes on, or is trained phase by phase, would be saved at other steps.
    """
    tf = load_tensorflow()
    hook = saver_hook(model_dir, listeners, save_steps=every)

    class AlignedTimer(tf.compat.v1.train.SecondOrStepTimer):  # type: ignore[misc,name-defined]
        """Triggers once a multiple of `every` was reached since it last did."""

        def should_trigger_for_step(self, step: int) -> bool:
            last = self.last_triggered_step()
            return last is None or step // every > last // every

    hook._timer = AlignedTimer(every_steps=every)
    hook._set_steps_per_run(lot)
    return hook


def load_input_hook() -> Any:
    """Returns the class `CheckpointInputPipelineHook`, TensorFlow's own where it has it."""
    if has_native_estimator():
        return load_tensorflow().data.experimental.CheckpointInputPipelineHook
    from estimator_tl.revival.standins.checkpoint_input_pipeline_hook import CheckpointInputPipelineHook

    return CheckpointInputPipelineHook
