"""`train_and_evaluate` for programs that have a main, an Estimator and input_fns of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from estimator_tl.compat import estimator as api
from estimator_tl.config import EvaluationSpec, LaunchSpec
from estimator_tl.errors import UserError, nearest
from estimator_tl.files import check_literal
from estimator_tl.heads import naming_bad_labels
from estimator_tl.inputs import latest_step
from estimator_tl.launch import loop
from estimator_tl.launch.cluster import rendezvous, tasks
from estimator_tl.launch.cluster.description import Cluster, from_tf_config
from estimator_tl.launch.cluster.run_config import described, without_peers
from estimator_tl.launch.evaluating.evaluation import Evaluator
from estimator_tl.launch.evaluating.in_memory import InMemoryHook, check_in_memory
from estimator_tl.launch.hooks import StallWatchdog
from estimator_tl.launch.run.disk import disk_errors, remove_debris
from estimator_tl.launch.run.ownership import owning
from estimator_tl.launch.stopping import StopEvaluationHook, StopRequests, stopping_at_signals
from estimator_tl.launch.training import Outcome, why_early
from estimator_tl.tf_internals.estimators import is_for_tpu, with_config, without_saving
from estimator_tl.tf_internals.files.checkpoint_state import correct_state

_EVALUATION = tuple(field.name for field in dataclasses.fields(EvaluationSpec))
_LAUNCH = ("stall_minutes", "cluster_wait_secs", "max_run_hours")


def train_and_evaluate(estimator: Any, train_spec: Any, eval_spec: Any | None = None, **settings: Any) -> Outcome:
    """Trains and evaluates as `tf.estimator.train_and_evaluate` does, and ends well whatever happens.

    In one process every checkpoint is evaluated. In a cluster, that of the Estimator's RunConfig and TF_CONFIG, this
    process does the part of its task: parameter servers leave when the run has ended, an evaluator evaluates what the
    chief saves, and where there is none the chief does it. SIGTERM and SIGUSR1 save the current step. What ends
    training before max_steps, such as the end of the data, is in the outcome and on standard error. Call it once in a
    process.

    Args:
      estimator: with a model_dir; its RunConfig is best made by `etl.run_config`.
      train_spec: a `TrainSpec` with max_steps.
      eval_spec: an `EvalSpec`; None for no evaluation. Its name decides the directory, ``eval_NAME``. Its defaults of
        throttle_secs, 600, and start_delay_secs, 120, would leave most checkpoints of a short run without evaluation,
        so they have no effect; other values do, start_delay_secs in an evaluator task only, as in TensorFlow.
      **settings: fields of `estimator_tl.config.EvaluationSpec`, such as ``metric``, ``early_stopping_steps`` and
        ``stop_at``; and ``stall_minutes``, ``cluster_wait_secs``, ``max_run_hours`` of `LaunchSpec`.
        ``eval_steps`` and ``eval_throttle_secs`` win over those of the EvalSpec.

    Returns:
      What was done; ``sys.exit(outcome.exit_code)`` tells it to a scheduler: 0, or 143 where the run is to go on.

    Raises:
      UserError: something has to be changed by the user.
      LostPeersError: other tasks did not come, or are gone; leave with 138 to be started again.
    """
    unknown = [name for name in settings if name not in (*_EVALUATION, *_LAUNCH)]
    if unknown:
        known = nearest(unknown[0], (*_EVALUATION, *_LAUNCH), limit=20)
        raise UserError(f"train_and_evaluate has no setting {unknown[0]!r}; {known}")
    if train_spec.max_steps is None:
        raise UserError("the TrainSpec has no max_steps, so that nobody knows where training ends; give it one.")
    own_rules = {name: settings[name] for name in _EVALUATION if settings.get(name) is not None}
    rules = EvaluationSpec(**{**_rules_of(eval_spec), **own_rules})
    launch = LaunchSpec(**{name: settings[name] for name in _LAUNCH if name in settings})
    requests = StopRequests(launch.max_run_hours)
    cluster, model_dir = from_tf_config(os.environ.get("TF_CONFIG", "")), estimator.model_dir
    check_literal(model_dir, "model_dir", writes=True)
    with stopping_at_signals(requests), _owning(model_dir, cluster), naming_bad_labels():
        before, started = latest_step(model_dir), time.monotonic()
        metrics = _Work(estimator, train_spec, eval_spec, rules, launch, requests, before).do(cluster)
        reached = latest_step(model_dir)
    outcome = Outcome(metrics, reached, reached - before, time.monotonic() - started, why_early(requests))
    if outcome.stop:
        print(f"stopped at step {reached}: {outcome.stop.reason}", file=sys.stderr, flush=True)
    return outcome


def _rules_of(eval_spec: Any | None) -> dict[str, Any]:
    """Returns the settings of an evaluation that an EvalSpec holds, but for its defaults of seconds."""
    if eval_spec is None:
        return {}
    rules = {"eval_steps": eval_spec.steps}
    if eval_spec.throttle_secs != _defaults().throttle_secs:
        rules["eval_throttle_secs"] = eval_spec.throttle_secs
    return rules


def _defaults() -> Any:
    return api.EvalSpec(lambda: None)


def _is_alone(cluster: Cluster | None) -> bool:
    return cluster is None or not (cluster.is_distributed or cluster.job == "evaluator")


@contextlib.contextmanager
def _owning(model_dir: str, cluster: Cluster | None) -> Iterator[None]:
    """A block in which this process, where it writes checkpoints, does so alone, from the newest whole one on."""
    if cluster is not None and not cluster.is_chief and not _is_alone(cluster):
        with disk_errors(model_dir):
            yield
        return
    with owning(model_dir), disk_errors(model_dir, owned=True):
        newest = correct_state(model_dir)
        if newest:
            newest.tell()
        remove_debris(model_dir)
        yield


@dataclasses.dataclass
class _Work:
    """The part of one process."""

    estimator: Any
    train_spec: Any
    eval_spec: Any | None
    rules: EvaluationSpec
    launch: LaunchSpec
    requests: StopRequests
    before: int

    def do(self, cluster: Cluster | None) -> dict[str, float]:
        if is_for_tpu(self.estimator):
            raise UserError(
                "train_and_evaluate has not been made for a TPUEstimator on its TPU; call its train and evaluate, or "
                "use `estimator-tl train --distribution=tpu`."
            )
        check_in_memory(self.rules, _is_alone(cluster))
        if cluster is None or _is_alone(cluster):
            return self._alone()
        if cluster.job == "evaluator" and self.eval_spec is None:
            raise UserError("this task is the evaluator, but there is no eval_spec; give train_and_evaluate one.")
        job = self._job(cluster)
        if cluster.is_chief:
            return tasks.run_chief(job, self.estimator.model_dir)
        follower = rendezvous.Follower(self.estimator.model_dir, cluster, job.settings, self.launch.cluster_wait_secs)
        if not follower.join(self.requests.pending):
            return {}
        if cluster.job == "ps":
            tasks.run_server(cluster, follower, self.requests, self.estimator.config.session_config)
        elif cluster.job == "evaluator":
            return tasks.run_evaluator(job, follower, self.estimator.model_dir)
        else:
            tasks.run_worker(job, follower)
        return {}

    def _alone(self) -> dict[str, float]:
        evaluator = self._evaluator() if self.eval_spec else None
        if evaluator:
            evaluator.look_back(self.before, self.requests)
        end = self.train_spec.max_steps
        in_memory = [InMemoryHook(evaluator, self.requests, end)] if evaluator and evaluator.rules.in_memory else []
        loop.train_and_evaluate(
            lambda _: self.estimator,
            self.train_spec.input_fn,
            [self._listener(evaluator)] if evaluator and not in_memory else [],
            [(0, end)] if self.before < end else [],
            lambda listeners: self._saver(listeners, self.estimator.model_dir),
            [*self._hooks(), *in_memory],
            self.requests,
        )
        if evaluator is None or (self.requests.stop and self.requests.stop.resumes):
            return {}
        return loop.finish(evaluator, latest_step(self.estimator.model_dir))

    def _job(self, cluster: Cluster) -> tasks.Job:
        synchronous = self.estimator.config.train_distribute is not None
        config = self.estimator.config
        return tasks.Job(
            cluster=cluster,
            make_estimator=lambda: without_saving(self.estimator) if synchronous else self.estimator,
            train_input=self.train_spec.input_fn,
            total=self.train_spec.max_steps,
            make_saver=self._saver,
            hooks=self._hooks(),
            chief_hooks=[],
            make_evaluator=self._evaluator if self.eval_spec else None,
            make_listener=self._listener,
            requests=self.requests,
            synchronous=synchronous,
            settings={
                "max_steps": self.train_spec.max_steps,
                "save_checkpoints_steps": config.save_checkpoints_steps,
                "save_checkpoints_secs": config.save_checkpoints_secs,
                "tf_random_seed": config.tf_random_seed,
            },
            throttle_secs=self.rules.eval_throttle_secs,
            evaluator_delay_secs=self._evaluator_delay(),
        )

    def _evaluator_delay(self) -> float:
        if self.eval_spec is None or self.eval_spec.start_delay_secs == _defaults().start_delay_secs:
            return 0.0
        return float(self.eval_spec.start_delay_secs)

    def _hooks(self) -> list[Any]:
        minutes = self.launch.stall_minutes
        return [*([StallWatchdog(minutes)] if minutes else []), *self.train_spec.hooks]

    def _evaluator(self) -> Evaluator:
        assert self.eval_spec is not None
        config = self.estimator.config
        with described(None):
            local = api.RunConfig(
                self.estimator.model_dir,
                tf_random_seed=config.tf_random_seed,
                session_config=without_peers(config.session_config),
            )
        rules = self.rules
        if rules.in_memory and self.eval_spec.hooks:
            raise UserError("an evaluation in memory has no session for the hooks of the EvalSpec; leave them out.")
        # A TPUEstimator, on the CPU, gives its functions more than it has among its params.
        by_itself = hasattr(self.estimator.config, "tpu_config")
        made = self.estimator if by_itself else with_config(self.estimator, local)
        return Evaluator(
            made,
            self.eval_spec.input_fn,
            self.eval_spec.exporters or (),
            rules,
            [*(self.eval_spec.hooks or ()), StopEvaluationHook(self.requests)],
            self.eval_spec.name,
        )

    def _listener(self, evaluator: Evaluator) -> loop.EvaluationListener:
        return loop.EvaluationListener(
            evaluator, self.requests, self.before, self.train_spec.max_steps, None, self.rules.eval_throttle_secs
        )

    def _saver(self, listeners: Sequence[Any], folder: str) -> Any:
        config = self.estimator.config
        # Other workers save to a folder that nobody keeps, and only where all have to save together.
        own = list(self.train_spec.saving_listeners or ()) if folder == self.estimator.model_dir else []
        return loop.saver_hook(folder, config.save_checkpoints_steps, config.save_checkpoints_secs, [*own, *listeners])
