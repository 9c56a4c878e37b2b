"""Training of one process with its evaluations: a graph for each phase, one schedule over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.compat.checkpoints import aligned_saver_hook
from estimator_tl.tuning import VariablePlan

Metrics = dict[str, float]


def stretches(plan: VariablePlan, before: int, total: int) -> Iterator[tuple[int | None, int]]:
    """Yields what is left to train: a phase's number (None without phases) and the global step where it ends."""
    if not plan.spans:
        if before < total:
            yield None, total
        return
    for number, span in enumerate(plan.spans):
        end = total if span.end is None else min(span.end, total)
        if max(span.start, before) < end:
            yield number, end


class Evaluation(tf.compat.v1.train.CheckpointSaverListener):  # type: ignore[misc]
    """Evaluates the checkpoints of multiples of a number of steps, and the last.

    Attributes:
      metrics: of the last evaluation; None before the first.
    """

    def __init__(self, evaluate: Callable[[], Any], every: int, before: int, total: int):
        """Args: evaluate: gives metrics. every: steps. before, total: the global steps where training begins and ends.

        No checkpoint is evaluated twice, as each phase saves where the one before it ended.
        """
        self._evaluate, self._every, self._total = evaluate, every, total
        self._seen = before
        self.metrics: Metrics | None = None

    def after_save(self, session: Any, global_step_value: int) -> None:
        del session
        step = int(global_step_value)
        if step > self._seen and (step % self._every == 0 or step == self._total):
            self._seen = step
            self.run()

    def run(self) -> Metrics:
        """Evaluates the newest checkpoint."""
        self.metrics = {name: float(value) for name, value in self._evaluate().items()}
        return self.metrics


def train_and_evaluate(
    make_estimator: Callable[[int | None], Any],
    train_input: Callable[..., Any],
    evaluate: Callable[[Any], Any] | None,
    parts: Sequence[tuple[int | None, int]],
    every: int,
    before: int,
    hooks: Sequence[Any],
) -> Metrics:
    """Trains what is left of a run.

    Args:
      make_estimator: returns the Estimator of one phase; all are of one model_dir.
      train_input: begins with the batch of the global step at which it is called.
      evaluate: takes an Estimator and gives metrics; None for no evaluation.
      parts: from `stretches`.
      every: steps between checkpoints, each of which is evaluated.
      before: the global step at which the call begins.
      hooks: further hooks, used in each part.

    Returns:
      The metrics of the last evaluation; empty without evaluation.
    """
    first = make_estimator(parts[0][0] if parts else None)
    total = parts[-1][1] if parts else before
    evaluation = evaluate and Evaluation(lambda: evaluate(first), every, before, total)
    for index, (phase, end) in enumerate(parts):
        model = first if index == 0 else make_estimator(phase)
        model.train(
            train_input,
            max_steps=end,
            hooks=[aligned_saver_hook(model.model_dir, every), *hooks],
            saving_listeners=[evaluation] if evaluation else None,
        )
    if not evaluation:
        return {}
    return evaluation.run() if evaluation.metrics is None else evaluation.metrics
