"""The hook that saves checkpoints, and the one that checks that the last step was saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.inputs import latest_step
from estimator_tl.tf_internals.files import checkpoints


def saver_hook(model_dir: str, steps: int, secs: int | None, listeners: Sequence[Any] = (), lot: int = 1) -> Any:
    """Returns the hook that saves: at the multiples of `steps`, or every so many seconds.

    Args:
      model_dir: where to.
      steps: between checkpoints.
      secs: between checkpoints, in place of steps.
      listeners: of what is saved.
      lot: steps that one session call makes.
    """
    if secs:
        return checkpoints.saver_hook(model_dir, listeners, save_secs=secs)
    return checkpoints.aligned_saver_hook(model_dir, steps, listeners, lot)


class ReachedHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Remembers the global step at which a session ended.

    Attributes:
      step: that step; 0 before.
    """

    def __init__(self) -> None:
        self.step = 0
        self._global_step: Any = None

    def begin(self) -> None:
        self._global_step = tf.compat.v1.train.get_global_step()

    def end(self, session: Any) -> None:
        self.step = int(session.run(self._global_step))

    def check_saved(self, model_dir: str) -> None:
        """Checks that the newest checkpoint is of that step, or of a later one of another task.

        Raises:
          UserError: it is of an earlier one, so that the numbers of the run would not be those of its end.
        """
        saved = latest_step(model_dir)
        if saved < self.step:
            raise UserError(
                f"training reached step {self.step}, but the newest whole checkpoint in {model_dir} is of step "
                f"{saved}; see that nothing else writes to that folder, and run the same command to go on from there."
            )
