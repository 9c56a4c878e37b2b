"""Which global step a session makes, known without asking it."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat import tf


class CountingHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Counts the steps of a session of one process, each of whose runs is a step.

    A read of the global step beside the train op gives the step before or the one after, by chance, and a read of its
    own costs each step a call.

    Attributes:
      step: the last global step that was finished.
    """

    def __init__(self) -> None:
        self.step = 0
        self._global_step: Any = None

    def begin(self) -> None:
        self._global_step = tf.compat.v1.train.get_global_step()

    def after_create_session(self, session: Any, coord: Any) -> None:
        self.step = int(session.run(self._global_step))

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self.step += 1
