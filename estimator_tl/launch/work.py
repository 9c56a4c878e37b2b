"""What one process does in a run that may begin: it trains, evaluates, or both."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from estimator_tl.compat import estimator
from estimator_tl.config import RunSpec
from estimator_tl.errors import UserError
from estimator_tl.export import make_exporters
from estimator_tl.inputs import latest_step
from estimator_tl.launch import loop
from estimator_tl.launch.cluster import rendezvous, tasks
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.launch.cluster.run_config import evaluation_session_config, make_run_config
from estimator_tl.launch.cluster.strategy import Distribution
from estimator_tl.launch.evaluating.evaluation import Evaluator
from estimator_tl.launch.evaluating.in_memory import InMemoryHook
from estimator_tl.launch.hooks import NanGuardHook, NormsHook, ProfilerHook, ProgressHook, StallWatchdog, profile_window
from estimator_tl.launch.run import run_dir, session
from estimator_tl.launch.run.preparation import Prepared
from estimator_tl.launch.stopping import StopEvaluationHook, StopRequests
from estimator_tl.tf_internals import tpu


@dataclasses.dataclass
class Work:
    """The part of one process in a run that may begin."""

    spec: RunSpec
    run: Prepared
    model_dir: str
    distribution: Distribution
    cluster: Cluster | None
    requests: StopRequests
    hooks: list[Any]

    def do(self, follower: rendezvous.Follower | None) -> dict[str, float]:
        """Trains or evaluates; returns the metrics of the last evaluation, where this process made one."""
        try:
            return self._alone() if self.cluster is None else self._in_cluster(self._job(self.cluster), follower)
        except estimator.NanLossDuringTrainingError as error:
            raise UserError(
                "the loss is not finite; lower --learning_rate, or train in one process, not on a TPU, to be "
                "told the layer. The last checkpoint is kept."
            ) from error

    def _in_cluster(self, job: tasks.Job, follower: rendezvous.Follower | None) -> dict[str, float]:
        if follower is None:
            return tasks.run_chief(job, self.model_dir)
        if job.cluster.job == "evaluator":
            return tasks.run_evaluator(job, follower, self.model_dir)
        tasks.run_worker(job, follower)
        return {}

    def _alone(self) -> dict[str, float]:
        run = self.run
        config = self._config()
        guard = NanGuardHook(model_dir=self.model_dir, where="tpu" if self._on_tpu else "alone")
        evaluator = self._evaluator() if run.evaluation else None
        if evaluator:
            evaluator.look_back(run.before, self.requests)
        in_memory = []
        if evaluator and evaluator.rules.in_memory:
            in_memory = [InMemoryHook(evaluator, self.requests, run.total)]
        loop.train_and_evaluate(
            lambda phase: self._estimator(config, phase),
            tpu.per_host(run.train_input) if self._on_tpu else run.train_input,
            [self._listener(evaluator)] if evaluator and not in_memory else [],
            loop.stretches(run.plan, run.before, run.total),
            lambda listeners: self._saver([guard.listener, *listeners], self.model_dir),
            [
                *self._watchdog(),
                guard,
                *self._shown(),
                *self._norms(self.model_dir),
                *self.hooks,
                *in_memory,
            ],
            self.requests,
        )
        if evaluator is None or (self.requests.stop and self.requests.stop.resumes):
            return {}
        return loop.finish(evaluator, latest_step(self.model_dir))

    def _job(self, cluster: Cluster) -> tasks.Job:
        guard = NanGuardHook(model_dir=self.model_dir, where="cluster")
        synchronous = self.distribution.kind == "multi_worker_mirrored"
        norms = self._norms(self.model_dir if cluster.is_chief else None, with_tasks=synchronous)
        return tasks.Job(
            cluster=cluster,
            make_estimator=lambda: self._estimator(self._config(), None),
            train_input=self.run.train_input,
            total=self.run.total,
            make_saver=lambda listeners, folder: self._saver([guard.listener, *listeners], folder),
            hooks=[*self._watchdog(), guard, *(norms if synchronous else []), *self.hooks],
            chief_hooks=[*self._shown(), *([] if synchronous else norms)],
            make_evaluator=self._evaluator if self.run.evaluation else None,
            make_listener=self._listener,
            requests=self.requests,
            synchronous=synchronous,
            settings=self.spec.to_json(),
            throttle_secs=self.spec.evaluation.eval_throttle_secs,
        )

    def _config(self) -> Any:
        fields = session.config_fields(self.spec.training, self.run.every)
        if self.distribution.kind in ("multi_worker_mirrored", "tpu"):
            # TensorFlow would save beside this project's hook.
            fields["save_checkpoints_steps"] = fields["save_checkpoints_secs"] = None
        return make_run_config(self.model_dir, self.spec.launch, self.cluster, self.distribution, **fields)

    def _estimator(self, config: Any, phase: int | None) -> Any:
        """Returns what trains."""
        model_fn = self.run.model_fn(only_phase=phase)
        if self._on_tpu:
            return tpu.make_estimator(model_fn, self.model_dir, config, self.spec.training.batch_size)
        return estimator.Estimator(model_fn, self.model_dir, config, params={})

    @property
    def _on_tpu(self) -> bool:
        return self.distribution.kind == "tpu"

    def _evaluator(self) -> Evaluator:
        assert self.run.evaluation
        data, part = self.run.evaluation
        config = session.local_config(self.model_dir, self.spec.training, evaluation_session_config(self.spec.launch))
        rules = self.spec.evaluation
        spec = self.run.source.input_spec
        return Evaluator(
            estimator.Estimator(self.run.model_fn(), self.model_dir, config, params={}),
            data.input_fn(spec, self.spec.training.batch_size, part),
            make_exporters(
                rules.exporters,
                spec,
                rules.metric,
                rules.sign > 0,
                rules.exports_to_keep,
                {run_dir.LABELS: os.path.join(self.model_dir, run_dir.LABELS)},
            ),
            rules,
            [StopEvaluationHook(self.requests)],
        )

    def _listener(self, evaluator: Evaluator) -> loop.EvaluationListener:
        any_step = self.spec.launch.save_checkpoints_secs or self.distribution.saves_anywhere
        every = None if any_step else self.run.every
        throttle = self.spec.evaluation.eval_throttle_secs
        return loop.EvaluationListener(evaluator, self.requests, self.run.before, self.run.total, every, throttle)

    def _saver(self, listeners: Sequence[Any], folder: str) -> Any:
        secs = self.spec.launch.save_checkpoints_secs
        return loop.saver_hook(folder, self.run.every, secs, listeners, self.distribution.loop)

    def _watchdog(self) -> list[Any]:
        minutes = self.spec.launch.stall_minutes
        return [StallWatchdog(minutes)] if minutes else []

    def _shown(self) -> list[Any]:
        """Returns the hooks of the task that people look at."""
        progress = ProgressHook(self.run.total, self.spec.training.batch_size, replicas=self.distribution.replicas)
        profile = self.spec.launch.profile
        return [progress, *([ProfilerHook(*profile_window(profile), self.model_dir)] if profile else [])]

    def _norms(self, folder: str | None, with_tasks: bool = False) -> list[Any]:
        every = self.spec.launch.log_norms
        groups = {variable.name: variable.group for variable in self.run.source.structure.variables}
        return [NormsHook(every, folder, groups, with_tasks)] if every else []
