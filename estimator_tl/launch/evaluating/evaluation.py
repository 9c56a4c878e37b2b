"""Evaluations of a run: metrics, exports that follow from them, and decisions to stop."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from estimator_tl.backbones.input.hooks import AnyBatchHook
from estimator_tl.compat import estimator
from estimator_tl.config import EvaluationSpec
from estimator_tl.errors import UserError, nearest
from estimator_tl.export import whole_versions
from estimator_tl.files import write_whole
from estimator_tl.launch.hooks.progress import show_evaluation
from estimator_tl.launch.stopping import EvaluationStopped, StopRequests
from estimator_tl.tf_internals.files.checkpoint_state import latest_checkpoint, step_of

Metrics = dict[str, float]
HISTORY = "evaluations.jsonl"


def reason_to_stop(rules: EvaluationSpec, history: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns why training is to end after these evaluations, oldest first; None where it is to go on.

    Raises:
      UserError: they have no such metric.
    """
    if not history or (rules.early_stopping_steps is None and rules.stop_at is None):
        return None
    last, name, sign = history[-1], rules.metric, rules.sign
    if name not in last:
        raise UserError(f"the evaluation has no metric {name!r}; {nearest(name, sorted(last))}")
    value, step = float(last[name]), int(last["global_step"])
    if rules.stop_at is not None and sign * value >= sign * rules.stop_at:
        return f"{name} {value:.4g} has reached {rules.stop_at:g}"
    known = [(sign * float(item[name]), -int(item["global_step"])) for item in history if name in item]
    best, at = max((pair for pair in known if not math.isnan(pair[0])), default=(math.nan, 0))
    if rules.early_stopping_steps is not None and step + at >= rules.early_stopping_steps:
        if math.isnan(best):
            return f"{name} has been no number for {step} steps"
        return f"{name} has not got better than {sign * best:.4g} since step {-at}"
    return None


class Evaluator:
    """Evaluates checkpoints of a run, one after the other.

    ``evaluations.jsonl`` in the run directory has the results of a run up to its step, so that rules know what was
    before a restart.

    Attributes:
      estimator: what is evaluated.
      input_fn: of the data.
      rules: for the end of training, and when to evaluate.
      name: of the evaluation, whose events are in ``eval_NAME``; None for ``eval``.
      metrics: of the last evaluation; None before the first.
    """

    def __init__(
        self,
        model: Any,
        input_fn: Callable[[], Any],
        exporters: Sequence[Any] = (),
        rules: EvaluationSpec | None = None,
        hooks: Sequence[Any] = (),
        name: str | None = None,
    ):
        """Prepares evaluation.

        Args:
          model: the Estimator, of this process alone, no part of a cluster.
          input_fn: of the data.
          exporters: `tf.estimator.Exporter`s.
          rules: for the end of training, and how many batches to use.
          hooks: of the evaluation's session.
          name: of the evaluation, where a run has several.
        """
        self.estimator, self.input_fn, self.rules = model, input_fn, rules or EvaluationSpec()
        self.name = name
        self._exporters, self._hooks = exporters, list(hooks)
        self._file = Path(model.model_dir, HISTORY)
        self._again = False
        self.metrics: Metrics | None = None

    def evaluate(self, checkpoint: str | None = None, at_least: int = 0) -> str | None:
        """Evaluates a checkpoint, the newest by default, and exports it where an exporter finds it worth that.

        Args:
          checkpoint: its prefix.
          at_least: the step that was just saved; another task may have made further ones by now.

        Returns:
          Why training is to end; None where it is to go on.

        Raises:
          UserError: what was evaluated is not what was trained, or the input_fn gives no batch.
        """
        path = checkpoint or self._newest()
        hooks = [*self._hooks, AnyBatchHook()]
        metrics = self.estimator.evaluate(
            self.input_fn, self.rules.eval_steps, checkpoint_path=path, hooks=hooks, name=self.name
        )
        check_step(metrics, path, at_least)
        reason = self.take(metrics)
        self._export(metrics, path, final=False)
        return reason

    def take(self, metrics: Mapping[str, Any]) -> str | None:
        """Shows and remembers metrics. Returns why training is to end; None where it is to go on."""
        show_evaluation(metrics)
        if self.metrics is None:
            known = read_history(self.estimator.model_dir)
            self._again = bool(known) and int(known[-1]["global_step"]) == int(metrics["global_step"])
        else:
            self._again = False
        self.metrics = {name: float(value) for name, value in metrics.items()}
        return reason_to_stop(self.rules, self._remember(self.metrics))

    def is_behind(self, step: int) -> bool:
        """True where this step was not evaluated."""
        return self.metrics is None or int(self.metrics["global_step"]) < step

    def finish(self) -> None:
        """Does the final exports, of the newest checkpoint, by the exporters that wait for them."""
        if self.metrics is not None:
            path = self._newest()
            check_step(self.metrics, path)
            self._export(self.metrics, path, final=True)

    def look_back(self, step: int, requests: StopRequests) -> None:
        """Ends a run before it begins, at a step where its rules have ended it before."""
        history = read_history(self.estimator.model_dir)
        if history and int(history[-1]["global_step"]) == step:
            reason = reason_to_stop(self.rules, history)
            if reason:
                requests.ask(reason, resumes=False)

    def _newest(self) -> str:
        path = latest_checkpoint(self.estimator.model_dir)
        if path is None:
            raise UserError(f"{self.estimator.model_dir} holds no checkpoint to evaluate; train to its first one.")
        return path

    def _export(self, metrics: Mapping[str, Any], path: str, final: bool) -> None:
        for exporter in self._exporters:
            if final and isinstance(exporter, estimator.LatestExporter):
                continue  # it has exported this checkpoint when that was evaluated
            folder = os.path.join(self.estimator.model_dir, "export", exporter.name)
            if self._again and _holds_export_since(folder, path):
                continue  # a run that had ended is looked at again
            with whole_versions(folder):
                exporter.export(self.estimator, folder, path, metrics, is_the_final_export=final)

    def _remember(self, metrics: Metrics) -> list[dict[str, Any]]:
        """Returns the evaluations of the run up to this one, without those of steps that it was set back behind."""
        step = int(metrics["global_step"])
        known = [item for item in read_history(self.estimator.model_dir) if int(item["global_step"]) < step]
        history = [*known, metrics]
        write_whole(self._file, "".join(json.dumps(item) + "\n" for item in history))
        return history


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


def check_step(metrics: Mapping[str, Any], checkpoint: str, at_least: int = 0) -> None:
    """Checks that metrics are those of a checkpoint: Estimator evaluates fresh variables where it restores nothing.

    Args:
      metrics: with ``global_step``.
      checkpoint: its prefix.
      at_least: the step that it must have reached.

    Raises:
      UserError: they are of another step.
    """
    step, evaluated = step_of(checkpoint), int(metrics["global_step"])
    if evaluated != step or step < at_least:
        raise UserError(
            f"the evaluation is of step {evaluated}, but {checkpoint} was saved at step {max(step, at_least)}; see "
            "that nothing else writes to the folder or replaces the Saver, and evaluate again."
        )


def _holds_export_since(folder: str, checkpoint: str) -> bool:
    """Returns whether there is an export that was made after a checkpoint; their names are seconds."""
    made = [int(name) for name in os.listdir(folder) if name.isdigit()] if os.path.isdir(folder) else []
    return max(made, default=0) >= int(os.path.getmtime(f"{checkpoint}.index"))


def read_history(model_dir: str) -> list[dict[str, Any]]:
    """Returns the evaluations of a run, oldest first; without lines that a machine which went down left unreadable."""
    path = Path(model_dir, HISTORY)
    found = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
