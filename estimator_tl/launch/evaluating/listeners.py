"""Decides which checkpoints of a run are evaluated during training."""

from __future__ import annotations

import time
from collections.abc import Callable

from estimator_tl.compat import tf
from estimator_tl.launch.evaluating.evaluation import Evaluator
from estimator_tl.launch.stopping import StopRequests
from estimator_tl.types import Session


class EvaluationListener(tf.compat.v1.train.CheckpointSaverListener):  # type: ignore[misc]
    """Evaluates checkpoints at multiples of a number of steps, or all checkpoints, and always the last one."""

    def __init__(
        self,
        evaluator: Evaluator,
        requests: StopRequests,
        start_step: int,
        total: int,
        every: int | None = None,
        throttle_secs: float = 0.0,
    ):
        """Prepares evaluation.

        Each phase first saves the last step of the phase before it; such a checkpoint is not evaluated again.

        Args:
          evaluator: evaluates.
          requests: gets a request when the rules of the evaluation stop training.
          start_step: the global step where training begins.
          total: the global step where training ends.
          every: steps between evaluations; None for every checkpoint.
          throttle_secs: the least time between the starts of two evaluations; does not hold for the last.
        """
        self._evaluator, self._requests = evaluator, requests
        self._total, self._every, self._throttle = total, every, throttle_secs
        self._last_step, self._last_start = start_step, -float("inf")

    def after_save(self, session: Session, global_step_value: int) -> bool:
        """Evaluates if it is due; returns whether training should stop at this step."""
        del session
        step = int(global_step_value)
        if step <= self._last_step or (self._requests.stop and self._requests.stop.resumes):
            return False
        due = self._every is None or step % self._every == 0
        if step == self._total or (due and time.monotonic() - self._last_start >= self._throttle):
            self._last_step, self._last_start = step, time.monotonic()
            reason = self._evaluator.evaluate(at_least=step)
            if reason:
                self._requests.ask(reason, resumes=False)
                return True
        return False


class UnlessEvaluated(tf.compat.v1.train.CheckpointSaverListener):  # type: ignore[misc]
    """A listener that evaluates unless an evaluator task has joined."""

    def __init__(self, listener: EvaluationListener, has_evaluator: Callable[[], bool], synchronous: bool):
        """Prepares the listener.

        Args:
          listener: the listener that evaluates.
          has_evaluator: returns whether an evaluator task has joined.
          synchronous: whether all tasks make each step together.
        """
        self._listener, self._has_evaluator, self._synchronous = listener, has_evaluator, synchronous

    def after_save(self, session: Session, global_step_value: int) -> bool:
        """Returns whether training should stop at this step; synchronous tasks agree on a stop in their next step."""
        if self._has_evaluator():
            return False
        return self._listener.after_save(session, global_step_value) and not self._synchronous
