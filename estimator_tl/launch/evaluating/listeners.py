"""When checkpoints of a run are evaluated while it trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.launch.evaluating.evaluation import Evaluator
from estimator_tl.launch.stopping import StopRequests


class EvaluationListener(tf.compat.v1.train.CheckpointSaverListener):  # type: ignore[misc]
    """Evaluates the checkpoints of multiples of a number of steps, or all, and that of the last step."""

    def __init__(
        self,
        evaluator: Evaluator,
        requests: StopRequests,
        before: int,
        total: int,
        every: int | None = None,
        throttle_secs: float = 0.0,
    ):
        """Prepares evaluation.

        No checkpoint is evaluated twice, as each phase saves where the one before it ended.

        Args:
          evaluator: does it.
          requests: told when the evaluation's rules end training.
          before: the global step where training begins.
          total: the one where it ends.
          every: steps; None for every checkpoint.
          throttle_secs: at least between two evaluations, but for the last.
        """
        self._evaluator, self._requests = evaluator, requests
        self._total, self._every, self._throttle = total, every, throttle_secs
        self._seen, self._began = before, -float("inf")

    def after_save(self, session: Any, global_step_value: int) -> bool:
        """Evaluates where it is time to; returns whether training is to end with this very step."""
        del session
        step = int(global_step_value)
        if step <= self._seen or (self._requests.stop and self._requests.stop.resumes):
            return False
        due = self._every is None or step % self._every == 0
        if step == self._total or (due and time.monotonic() - self._began >= self._throttle):
            self._seen, self._began = step, time.monotonic()
            reason = self._evaluator.evaluate(at_least=step)
            if reason:
                self._requests.ask(reason, resumes=False)
                return True
        return False


class UnlessEvaluated(tf.compat.v1.train.CheckpointSaverListener):  # type: ignore[misc]
    """A listener that leaves the evaluation to an evaluator task where there is one."""

    def __init__(self, listener: EvaluationListener, has_evaluator: Callable[[], bool], synchronous: bool):
        """Prepares the listener.

        Args:
          listener: evaluates.
          has_evaluator: returns whether an evaluator task has joined.
          synchronous: whether all tasks make each step together.
        """
        self._listener, self._has_evaluator, self._synchronous = listener, has_evaluator, synchronous

    def after_save(self, session: Any, global_step_value: int) -> bool:
        """Returns whether training ends with this step; tasks that make it together agree on the next one."""
        if self._has_evaluator():
            return False
        return self._listener.after_save(session, global_step_value) and not self._synchronous
