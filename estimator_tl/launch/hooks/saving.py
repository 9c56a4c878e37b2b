"""The hook that saves checkpoints, and the hook that checks that the last step was saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.inputs import latest_step
from estimator_tl.tf_internals.files import checkpoints
from estimator_tl.types import Session


def saver_hook(
    model_dir: str, steps: int, secs: int | None, listeners: Sequence[Any] = (), steps_per_call: int = 1
) -> Any:
    """Returns the hook that saves checkpoints, at multiples of `steps` or every `secs` seconds.

    Args:
      model_dir: the folder of the checkpoints.
      steps: steps between checkpoints.
      secs: seconds between checkpoints, instead of steps.
      listeners: CheckpointSaverListeners.
      steps_per_call: steps that one session call makes.
    """
    if secs:
        return checkpoints.saver_hook(model_dir, listeners, save_secs=secs)
    return checkpoints.aligned_saver_hook(model_dir, steps, listeners, steps_per_call)


class ReachedHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Remembers the global step at which a session ended.

    Attributes:
      step: the global step; 0 before the end.
    """

    def __init__(self) -> None:
        self.step = 0
        self._global_step: Any = None

    def begin(self) -> None:
        self._global_step = tf.compat.v1.train.get_global_step()

    def end(self, session: Session) -> None:
        self.step = int(session.run(self._global_step))

    def check_saved(self, model_dir: str) -> None:
        """Checks that the newest checkpoint has this step, or a later step of another task.

        Raises:
          UserError: the checkpoint has an earlier step, so the results would not belong to the end of the run.
        """
        saved = latest_step(model_dir)
        if saved < self.step:
            raise UserError(
                f"training reached step {self.step}, but the newest whole checkpoint in {model_dir} is of step "
                f"{saved}; let nothing else write to that folder, and run the same command to go on from there."
            )
