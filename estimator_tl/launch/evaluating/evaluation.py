"""Evaluations of a run: metrics, the exports after them, and decisions to stop."""

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
from estimator_tl.types import Estimator

Metrics = dict[str, float]
HISTORY = "evaluations.jsonl"


def reason_to_stop(rules: EvaluationSpec, history: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns why training should stop after these evaluations; None to continue.

    Args:
      rules: the rules of early_stopping_steps and stop_at.
      history: the evaluations of the run, oldest first.

    Raises:
      UserError: the last evaluation lacks the metric of the rules.
    """
    if not history or (rules.early_stopping_steps is None and rules.stop_at is None):
        return None
    last, name, sign = history[-1], rules.metric, rules.sign
    if name not in last:
        raise UserError(f"the evaluation has no metric {name!r}; {nearest(name, sorted(last))}")
    value, step = float(last[name]), int(last["global_step"])
    if rules.stop_at is not None and sign * value >= sign * rules.stop_at:
        return f"{name} {value:.4g} has reached {rules.stop_at:g}"
    # The negative step makes max() choose the earliest of equal values.
    scores = [(sign * float(item[name]), -int(item["global_step"])) for item in history if name in item]
    best, minus_step = max((score for score in scores if not math.isnan(score[0])), default=(math.nan, 0))
    if rules.early_stopping_steps is not None and step + minus_step >= rules.early_stopping_steps:
        if math.isnan(best):
            return f"{name} has been NaN for {step} steps"
        return f"{name} has not got better than {sign * best:.4g} since step {-minus_step}"
    return None


class Evaluator:
    """Evaluates checkpoints of a run, one after the other.

    The file ``evaluations.jsonl`` in the run directory keeps the metrics up to the step of the run, so that the rules
    also count evaluations from before a restart.

    Attributes:
      estimator: the Estimator.
      input_fn: gives the evaluation data.
      rules: when to evaluate, and when training stops.
      name: the name of the evaluation, whose events are in ``eval_NAME``; None for ``eval``.
      metrics: the metrics of the last evaluation; None before the first.
    """

    def __init__(
        self,
        model: Estimator,
        input_fn: Callable[[], Any],
        exporters: Sequence[Any] = (),
        rules: EvaluationSpec | None = None,
        hooks: Sequence[Any] = (),
        name: str | None = None,
    ):
        """Prepares evaluation.

        Args:
          model: an Estimator that runs in this process, outside any cluster.
          input_fn: gives the evaluation data.
          exporters: `tf.estimator.Exporter`s.
          rules: when training stops, and how many batches to use.
          hooks: SessionRunHooks of the evaluation.
          name: the name of the evaluation, if a run has several.
        """
        self.estimator, self.input_fn, self.rules = model, input_fn, rules or EvaluationSpec()
        self.name = name
        self._exporters, self._hooks = exporters, list(hooks)
        self._file = Path(model.model_dir, HISTORY)
        self._repeats_last = False  # whether this evaluates a step that the run had evaluated before it restarted
        self.metrics: Metrics | None = None

    def evaluate(self, checkpoint: str | None = None, at_least: int = 0) -> str | None:
        """Evaluates a checkpoint and passes it to the exporters.

        Args:
          checkpoint: the prefix of the checkpoint; the newest by default.
          at_least: the step that was just saved; the checkpoint may be newer, as other tasks make steps too.

        Returns:
          Why training should stop; None to continue.

        Raises:
          UserError: the evaluation is of another step than the checkpoint, or the input_fn gives no batch.
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
        """Shows and stores metrics. Returns why training should stop; None to continue."""
        show_evaluation(metrics)
        if self.metrics is None:
            history = read_history(self.estimator.model_dir)
            self._repeats_last = bool(history) and int(history[-1]["global_step"]) == int(metrics["global_step"])
        else:
            self._repeats_last = False
        self.metrics = {name: float(value) for name, value in metrics.items()}
        return reason_to_stop(self.rules, self._add_to_history(self.metrics))

    def is_behind(self, step: int) -> bool:
        """True if this step was not evaluated yet."""
        return self.metrics is None or int(self.metrics["global_step"]) < step

    def finish(self) -> None:
        """Exports the newest checkpoint with the exporters that wait for the end of training."""
        if self.metrics is not None:
            path = self._newest()
            check_step(self.metrics, path)
            self._export(self.metrics, path, final=True)

    def look_back(self, step: int, requests: StopRequests) -> None:
        """Requests a stop before the first step if the rules already ended the run at this step."""
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
                continue  # it exported this checkpoint after its evaluation
            folder = os.path.join(self.estimator.model_dir, "export", exporter.name)
            if self._repeats_last and _holds_export_since(folder, path):
                continue  # an earlier call exported it
            with whole_versions(folder):
                exporter.export(self.estimator, folder, path, metrics, is_the_final_export=final)

    def _add_to_history(self, metrics: Metrics) -> list[dict[str, Any]]:
        """Writes and returns the evaluations of the run up to this one; a rollback drops evaluations of later steps."""
        step = int(metrics["global_step"])
        earlier = [item for item in read_history(self.estimator.model_dir) if int(item["global_step"]) < step]
        history = [*earlier, metrics]
        write_whole(self._file, "".join(json.dumps(item) + "\n" for item in history))
        return history


def finish(evaluator: Evaluator, step: int) -> Metrics:
    """Evaluates the last checkpoint if necessary, does the final exports, and returns the metrics.

    Returns:
      The metrics; empty if a signal ends the evaluation.
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
    """Checks that metrics belong to a checkpoint; Estimator evaluates initial values if it restores nothing.

    Args:
      metrics: the metrics, with ``global_step``.
      checkpoint: the prefix of the checkpoint.
      at_least: the step that the checkpoint must have reached.

    Raises:
      UserError: the metrics belong to another step.
    """
    step, evaluated = step_of(checkpoint), int(metrics["global_step"])
    if evaluated != step or step < at_least:
        raise UserError(
            f"the evaluation is of step {evaluated}, but {checkpoint} was saved at step {max(step, at_least)}; let "
            "nothing else write to the folder or replace the Saver, and evaluate again."
        )


def _holds_export_since(folder: str, checkpoint: str) -> bool:
    """Returns whether a folder holds an export newer than a checkpoint; the name of an export is its Unix time."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    newest = max((int(name) for name in names if name.isdigit()), default=0)
    return newest >= int(os.path.getmtime(f"{checkpoint}.index"))


def read_history(model_dir: str) -> list[dict[str, Any]]:
    """Returns the evaluations of a run, oldest first; skips lines that a crash left unreadable."""
    path = Path(model_dir, HISTORY)
    if not path.is_file():
        return []
    history = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            history.append(json.loads(line))
        except ValueError:
            continue
    return history
