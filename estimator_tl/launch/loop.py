"""Training of one process with its evaluations: a graph for each phase, one schedule over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.inputs import latest_step
from estimator_tl.launch.evaluating.evaluation import Evaluator, Metrics
from estimator_tl.launch.stopping import EvaluationStopped, StopHook, StopRequests
from estimator_tl.spans import Interval
from estimator_tl.tf_internals.files import checkpoints
from estimator_tl.tuning import VariablePlan


def stretches(plan: VariablePlan, before: int, total: int) -> list[tuple[int, int]]:
    """Returns what is left to train: the numbers of phases, and the global step where each ends."""
    rest = Interval(before, total)
    return [(number, span.end_by(total)) for number, span in enumerate(plan.spans) if span.overlaps(rest)]


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


class ReachedHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Remembers the global step at which a session ended.

    Attributes:
      step: that step; 0 before.
    """

    def __init__(self) -> None:
        self.step = 0

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


def train_and_evaluate(
    make_estimator: Callable[[int], Any],
    train_input: Callable[..., Any],
    listeners: Sequence[Any],
    parts: Sequence[tuple[int, int]],
    make_saver: Callable[[Sequence[Any]], Any],
    hooks: Sequence[Any],
    requests: StopRequests,
) -> None:
    """Trains what is left of a run.

    Args:
      make_estimator: returns the Estimator of one phase; all are of one model_dir.
      train_input: begins with the batch of the global step at which it is called.
      listeners: of checkpoints.
      parts: from `stretches`.
      make_saver: returns the hook that saves, given its listeners.
      hooks: further hooks, used in each part, before the saver's.
      requests: what may end training early.

    Raises:
      UserError: the last step is not in a checkpoint.
    """
    total = parts[-1][1] if parts else 0
    for phase, end in parts:
        if requests.stop:
            return
        model, reached = make_estimator(phase), ReachedHook()
        stopping = StopHook(requests, total)
        try:
            model.train(train_input, max_steps=end, hooks=[*hooks, reached, make_saver(listeners), stopping])
        except EvaluationStopped:
            return
        reached.check_saved(model.model_dir)
        ask_where_a_hook_stopped(requests, latest_step(model.model_dir), end)


def ask_where_a_hook_stopped(requests: StopRequests, step: int, end: int) -> None:
    """Asks for the end of training where it has ended early without a request: by a hook of the program.

    Args:
      requests: told.
      step: the global step reached.
      end: the one that was to be reached.
    """
    if step < end:
        requests.ask(f"a hook of the program ended training before step {end}", resumes=False)


def finish(evaluator: Evaluator, step: int) -> Metrics:
    """Evaluates the last checkpoint, where that was not done, does the final exports, and returns the metrics.

    Where a signal ends that evaluation there are none.
    """
    if evaluator.is_behind(step):
        try:
            evaluator.evaluate(at_least=step)
        except EvaluationStopped:
            return {}
    evaluator.finish()
    assert evaluator.metrics is not None
    return evaluator.metrics
