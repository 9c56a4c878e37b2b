"""`train_and_evaluate` for programs with their own main, Estimator and input_fns."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from estimator_tl.compat import estimator as api
from estimator_tl.config import EvaluationSpec, LaunchSpec
from estimator_tl.errors import UserError, nearest
from estimator_tl.files import check_literal
from estimator_tl.inputs import latest_step
from estimator_tl.launch.cluster.description import Cluster, from_tf_config
from estimator_tl.launch.cluster.run_config import described, without_peers
from estimator_tl.launch.evaluating.evaluation import Evaluator
from estimator_tl.launch.evaluating.in_memory import check_in_memory
from estimator_tl.launch.hooks import saver_hook
from estimator_tl.launch.job import Job
from estimator_tl.launch.outcome import Outcome
from estimator_tl.launch.run.disk import remove_debris
from estimator_tl.launch.stopping import StopEvaluationHook, StopRequests
from estimator_tl.tf_internals.estimators import is_for_tpu, with_config, without_saving
from estimator_tl.tf_internals.files.checkpoint_state import correct_state
from estimator_tl.types import Estimator

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from estimator_tl.config.typed import ProgramSettings

_EVALUATION = tuple(field.name for field in dataclasses.fields(EvaluationSpec))
_LAUNCH = ("stall_minutes", "cluster_wait_secs", "max_run_hours")


def train_and_evaluate(
    estimator: Estimator, train_spec: Any, eval_spec: Any | None = None, **settings: Unpack[ProgramSettings]
) -> Outcome:
    """Trains and evaluates as `tf.estimator.train_and_evaluate` does, and also ends cleanly on signals and failures.

    One process evaluates every checkpoint. In a cluster, which the Estimator's RunConfig and TF_CONFIG describe, the
    process does the part of its task: parameter servers exit when the run has ended, and an evaluator evaluates the
    chief's checkpoints; without an evaluator the chief evaluates. SIGTERM and SIGUSR1 save the current step. If
    training ends before max_steps, e.g. at the end of the data, the outcome and standard error tell the reason. Call
    the function once in a process.

    Args:
      estimator: an Estimator with a model_dir; make its RunConfig with `etl.run_config`.
      train_spec: a `TrainSpec` with max_steps.
      eval_spec: an `EvalSpec`; None for no evaluation. Its name gives the directory ``eval_NAME``. The default values
        throttle_secs=600 and start_delay_secs=120 have no effect, as a short run would evaluate few of its checkpoints.
        Other values do; start_delay_secs only in an evaluator task, as in TensorFlow.
      **settings: fields of `estimator_tl.config.EvaluationSpec`, such as ``metric``, ``early_stopping_steps`` and
        ``stop_at``; and ``stall_minutes``, ``cluster_wait_secs``, ``max_run_hours`` of `LaunchSpec`.
        ``eval_steps`` and ``eval_throttle_secs`` win over the values of the EvalSpec.

    Returns:
      The outcome. ``sys.exit(outcome.exit_code)`` tells a scheduler to start the run again (143) or not (0).

    Raises:
      UserError: the user has to change something.
      LostPeersError: other tasks did not appear, or have left; exit with 138 so that the task is restarted.

    Example:
      >>> estimator = etl.estimator.Estimator(model_fn, "runs/program", params={})
      >>> outcome = etl.train_and_evaluate(
      ...     estimator,
      ...     etl.estimator.TrainSpec(data.input_fn(backbone.image_spec, 4, "train", training=True), max_steps=2),
      ...     etl.estimator.EvalSpec(data.input_fn(backbone.image_spec, 4, "validation")),
      ...     early_stopping_steps=100,
      ... )
      >>> outcome.global_step, outcome.exit_code
      (2, 0)
    """
    unknown = [name for name in settings if name not in (*_EVALUATION, *_LAUNCH)]
    if unknown:
        names = nearest(unknown[0], (*_EVALUATION, *_LAUNCH), limit=20)
        raise UserError(f"train_and_evaluate has no setting {unknown[0]!r}; {names}")
    if train_spec.max_steps is None:
        raise UserError("the TrainSpec has no max_steps, so the end of training is unknown; give it one.")
    check_literal(estimator.model_dir, "model_dir", writes=True)
    overrides: dict[str, Any] = {n: v for n, v in settings.items() if n in _EVALUATION and v is not None}
    rules = EvaluationSpec(**{**_rules_of(eval_spec), **overrides})
    waits: dict[str, Any] = {name: value for name, value in settings.items() if name in _LAUNCH}
    launch = LaunchSpec(**waits)
    cluster = from_tf_config(os.environ.get("TF_CONFIG", ""))
    outcome = ProgramJob(estimator, train_spec, eval_spec, rules, launch, cluster).run()
    if outcome.stop:
        print(f"stopped at step {outcome.global_step}: {outcome.stop.reason}", file=sys.stderr, flush=True)
    return outcome


class ProgramJob(Job):
    """The job of a program with its own Estimator and input_fns."""

    def __init__(
        self,
        model: Estimator,
        train_spec: Any,
        eval_spec: Any | None,
        rules: EvaluationSpec,
        launch: LaunchSpec,
        cluster: Cluster | None = None,
    ):
        """Prepares the run.

        Args:
          model: the Estimator.
          train_spec: a TrainSpec with max_steps.
          eval_spec: an EvalSpec; None for no evaluation.
          rules: when to evaluate and when to stop.
          launch: how long tasks wait.
          cluster: the cluster of TF_CONFIG.

        Raises:
          UserError: the Estimator is for a TPU, or the rules do not fit the cluster.
        """
        cluster = None if _in_one_process(cluster) else cluster
        requests = StopRequests(launch.max_run_hours)
        super().__init__(model.model_dir, cluster, requests, launch.cluster_wait_secs, launch.stall_minutes)
        if is_for_tpu(model):
            raise UserError(
                "train_and_evaluate does not support a TPUEstimator with use_tpu=True; call its train and evaluate, or "
                "use `estimator-tl train --distribution=tpu`."
            )
        check_in_memory(rules, cluster is None)
        if cluster and cluster.job == "evaluator" and eval_spec is None:
            raise UserError("this task is the evaluator, but there is no eval_spec; give train_and_evaluate one.")
        self._estimator, self._train_spec, self._eval_spec, self._rules = model, train_spec, eval_spec, rules
        self._start_step = 0
        self.throttle_secs = rules.eval_throttle_secs
        self.evaluator_delay_secs = _evaluator_delay(eval_spec)

    @property
    def settings(self) -> dict[str, Any]:
        config = self._estimator.config
        return {
            "max_steps": self.total,
            "save_checkpoints_steps": config.save_checkpoints_steps,
            "save_checkpoints_secs": config.save_checkpoints_secs,
            "tf_random_seed": config.tf_random_seed,
        }

    @property
    def synchronous(self) -> bool:
        return self.cluster is not None and self._estimator.config.train_distribute is not None

    @property
    def start_step(self) -> int:
        return self._start_step

    @property
    def total(self) -> int:
        return int(self._train_spec.max_steps)

    @property
    def train_input(self) -> Callable[..., Any]:
        input_fn: Callable[..., Any] = self._train_spec.input_fn
        return input_fn

    def begin(self, owns: bool) -> None:
        if owns:
            newest = correct_state(self.model_dir)
            if newest:
                newest.report_damaged()
            remove_debris(self.model_dir)
        self._start_step = latest_step(self.model_dir)

    def end(self, outcome: Outcome) -> None:
        """Stores nothing, as the program gets the outcome."""

    def parts(self) -> list[tuple[int | None, int]]:
        return [(None, self.total)] if self.start_step < self.total else []

    def estimator(self, phase: int | None) -> Any:
        return without_saving(self._estimator) if self.synchronous else self._estimator

    def evaluator(self) -> Evaluator | None:
        if self._eval_spec is None:
            return None
        if self._rules.in_memory and self._eval_spec.hooks:
            raise UserError("an evaluation in memory has no session for the hooks of the EvalSpec; leave them out.")
        return Evaluator(
            self._local_estimator(),
            self._eval_spec.input_fn,
            self._eval_spec.exporters or (),
            self._rules,
            [*(self._eval_spec.hooks or ()), StopEvaluationHook(self.requests)],
            self._eval_spec.name,
        )

    def _local_estimator(self) -> Any:
        """Returns a copy of the Estimator that evaluates in this process, without a cluster."""
        config = self._estimator.config
        if hasattr(config, "tpu_config"):
            # A TPUEstimator, even on the CPU, passes its functions more params than it stores.
            return self._estimator
        with described(None):
            local = api.RunConfig(
                self.model_dir,
                tf_random_seed=config.tf_random_seed,
                session_config=without_peers(config.session_config),
            )
        return with_config(self._estimator, local)

    def saver(self, listeners: Sequence[Any], folder: str) -> Any:
        config = self._estimator.config
        if folder == self.model_dir:  # the program's listeners get no checkpoints of a worker's temporary folder
            listeners = [*(self._train_spec.saving_listeners or ()), *listeners]
        return saver_hook(folder, config.save_checkpoints_steps, config.save_checkpoints_secs, listeners)

    def hooks(self) -> list[Any]:
        return list(self._train_spec.hooks)

    def session_config(self) -> Any:
        return self._estimator.config.session_config


def _evaluator_delay(eval_spec: Any | None) -> float:
    if eval_spec is None or eval_spec.start_delay_secs == _defaults().start_delay_secs:
        return 0.0
    return float(eval_spec.start_delay_secs)


def _rules_of(eval_spec: Any | None) -> dict[str, Any]:
    """Returns the evaluation settings of an EvalSpec, without a throttle_secs that is the default."""
    if eval_spec is None:
        return {}
    rules = {"eval_steps": eval_spec.steps}
    if eval_spec.throttle_secs != _defaults().throttle_secs:
        rules["eval_throttle_secs"] = eval_spec.throttle_secs
    return rules


def _defaults() -> Any:
    return api.EvalSpec(lambda: None)


def _in_one_process(cluster: Cluster | None) -> bool:
    return cluster is None or not (cluster.is_distributed or cluster.job == "evaluator")
