"""Counts the global steps of a session without reading them."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat import tf
from estimator_tl.types import RunContext, RunValues, Session


class CountingHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Counts the steps of a session in one process, where each session call is a step.

    A fetch of the global step together with the train op returns the value before or after the update, by chance. A
    separate fetch would cost one more session call for each step.

    Attributes:
      step: the last finished global step.
    """

    def __init__(self) -> None:
        self.step = 0
        self._global_step: Any = None

    def begin(self) -> None:
        self._global_step = tf.compat.v1.train.get_global_step()

    def after_create_session(self, session: Session, coord: Any) -> None:
        self.step = int(session.run(self._global_step))

    def after_run(self, run_context: RunContext, run_values: RunValues) -> None:
        self.step += 1
