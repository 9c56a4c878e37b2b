"""A profile of a few steps, for TensorBoard."""

from __future__ import annotations

import re

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.launch.hooks.counting import CountingHook
from estimator_tl.types import RunContext, RunValues, Session


def profile_window(text: str) -> tuple[int, int]:
    """Returns the first and the last global step of a window such as ``100,110``.

    Raises:
      UserError: the text is not a window.
    """
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if not match:
        raise UserError(
            f"--profile={text} is not two global steps; give the first and the last, e.g. --profile=100,110."
        )
    first, last = int(match[1]), int(match[2])
    if first < 1:
        raise UserError(
            f"--profile={text} begins at step {first}, but the first step is 1; give e.g. --profile=1,{max(last, 1)}."
        )
    if last < first:
        raise UserError(
            f"--profile={text} ends before it begins; give the earlier step first: --profile={last},{first}."
        )
    return first, last


class ProfilerHook(CountingHook):
    """Profiles the global steps from `first` to `last`, both included, into ``LOGDIR/plugins/profile``.

    If training ends inside the window, the profile ends there. Steps that the run has already passed are not profiled.
    """

    def __init__(self, first: int, last: int, logdir: str):
        """Args: first, last: global steps, from 1. logdir: the folder, e.g. the model_dir."""
        super().__init__()
        self._first, self._last, self._logdir = first, last, logdir
        self._running = False

    def before_run(self, run_context: RunContext) -> None:
        if not self._running and self._first <= self.step + 1 <= self._last:
            tf.profiler.experimental.start(self._logdir)
            self._running = True

    def after_run(self, run_context: RunContext, run_values: RunValues) -> None:
        super().after_run(run_context, run_values)
        if self.step >= self._last:
            self._stop()

    def end(self, session: Session) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            tf.profiler.experimental.stop()
