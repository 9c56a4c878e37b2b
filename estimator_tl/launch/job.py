"""Trains and evaluates a run: what this process does, alone or as a task of a cluster.

Parameter servers are Estimator's classic ones: each worker trains independently on variables that the servers hold.
TensorFlow's distribute coordinator runs MultiWorkerMirrored. In both, one gated graph serves all phases, as a task
cannot start its server twice.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl.compat import estimator, tf
from estimator_tl.heads import naming_bad_labels
from estimator_tl.inputs import latest_step
from estimator_tl.launch.cluster import following, rendezvous, servers
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.launch.evaluating.evaluation import Evaluator, Metrics, finish
from estimator_tl.launch.evaluating.in_memory import InMemoryHook
from estimator_tl.launch.evaluating.listeners import EvaluationListener, UnlessEvaluated
from estimator_tl.launch.hooks import ReachedHook, StallWatchdog
from estimator_tl.launch.outcome import Outcome
from estimator_tl.launch.run.disk import disk_errors
from estimator_tl.launch.run.ownership import owning
from estimator_tl.launch.stopping import (
    EvaluationStopped,
    StopHook,
    StopRequests,
    report_early_end,
    stopping_at_signals,
)
from estimator_tl.tf_internals.files.checkpoint_state import listed_checkpoints

_JOIN_SECS = 6.0


class Job(abc.ABC):
    """A training job; `run` does the part of this process.

    Attributes:
      model_dir: the run directory.
      cluster: the cluster with this task; None for one process.
      requests: collects requests to stop training early.
      wait_secs: how long tasks wait for each other.
      stall_minutes: minutes without a step after which this task exits; 0 for no limit.
      throttle_secs: the least time between the starts of two evaluations.
      evaluator_delay_secs: the wait before an evaluator task's first evaluation, unless the run has ended.
    """

    throttle_secs = 0.0
    evaluator_delay_secs = 0.0

    def __init__(
        self, model_dir: str, cluster: Cluster | None, requests: StopRequests, wait_secs: float, stall_minutes: float
    ):
        """Prepares the job; see the class for the arguments."""
        self.model_dir, self.cluster, self.requests = model_dir, cluster, requests
        self.wait_secs, self.stall_minutes = wait_secs, stall_minutes

    @property
    @abc.abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Plain values that must be equal in all tasks."""

    @property
    @abc.abstractmethod
    def synchronous(self) -> bool:
        """Whether all workers make each step together."""

    @property
    @abc.abstractmethod
    def start_step(self) -> int:
        """The global step at which this call begins."""

    @property
    @abc.abstractmethod
    def total(self) -> int:
        """The global step at which training ends."""

    @property
    @abc.abstractmethod
    def train_input(self) -> Callable[..., Any]:
        """The input_fn of training; it begins with the batch of the global step at which it is called."""

    @abc.abstractmethod
    def parts(self) -> list[tuple[int | None, int]]:
        """Returns the phases that one process still has to train: their numbers (None for all) and their last steps."""

    @abc.abstractmethod
    def estimator(self, phase: int | None) -> Any:
        """Returns this task's Estimator, for one phase or (None) for all."""

    @abc.abstractmethod
    def evaluator(self) -> Evaluator | None:
        """Returns the evaluator of this process; None without evaluation."""

    @abc.abstractmethod
    def saver(self, listeners: Sequence[Any], folder: str) -> Any:
        """Returns the hook that saves checkpoints.

        Args:
          listeners: CheckpointSaverListeners.
          folder: the folder of the checkpoints.
        """

    @abc.abstractmethod
    def hooks(self) -> list[Any]:
        """Returns the training hooks of this task, without the saver and the hooks that the job adds."""

    @abc.abstractmethod
    def session_config(self) -> Any:
        """Returns the ConfigProto of this task's server and sessions."""

    @property
    def evaluated_every(self) -> int | None:
        """Steps between evaluated checkpoints; None where each checkpoint is evaluated."""
        return None

    @abc.abstractmethod
    def begin(self, owns: bool) -> None:
        """Prepares training or evaluation; if it raises, nothing has been written.

        Args:
          owns: whether this process writes the run directory.
        """

    @abc.abstractmethod
    def end(self, outcome: Outcome) -> None:
        """Stores the outcome; called in the process that writes the run directory."""

    def naming_errors(self) -> contextlib.AbstractContextManager[None]:
        """Returns a block that turns errors of TensorFlow into errors that a user can fix."""
        return naming_bad_labels()

    def run(self) -> Outcome:
        """Does the part of this process.

        Raises:
          UserError: the user has to change something.
          LostPeersError: other tasks did not appear, or have left.
        """
        cluster, follower = self.cluster, None
        with stopping_at_signals(self.requests):
            if cluster and cluster.job != "evaluator":
                rendezvous.wait_for_names(cluster, self.wait_secs, self.requests.pending)
            if cluster and not cluster.is_chief:
                follower = rendezvous.Follower(self.model_dir, cluster, self.settings, self.wait_secs)
                if not follower.join(self.requests.pending):
                    return self._outcome({}, time.monotonic(), steps=0)
            leads = follower is None
            with owning(self.model_dir) if leads else contextlib.nullcontext(), disk_errors(self.model_dir, leads):
                if cluster and follower and cluster.job == "ps":  # needs neither data nor model, so no `begin`
                    started = time.monotonic()
                    servers.serve(cluster, follower, self.requests, self.session_config())
                    return self._outcome({}, started, steps=0)
                self.begin(leads)
                if self.requests.stop:
                    return self._outcome({}, time.monotonic(), steps=0)
                started = time.monotonic()
                with self.naming_errors():
                    metrics = self._part(follower)()
                outcome = self._outcome(metrics, started, latest_step(self.model_dir) - self.start_step)
                if leads:
                    self.end(outcome)
                return outcome

    def _part(self, follower: rendezvous.Follower | None) -> Callable[[], Metrics]:
        """Returns the method that does the part of this task."""
        if self.cluster is None:
            return self._train_alone
        if follower is None:
            return self._train_as_chief
        if self.cluster.job == "evaluator":
            return functools.partial(self._evaluate, follower)
        return functools.partial(self._train_as_worker, follower)

    def _outcome(self, metrics: Metrics, started: float, steps: int) -> Outcome:
        stop = self.requests.stop
        if stop and not stop.reason:  # the chief has finished, so training did not end early
            stop = None
        return Outcome(metrics, latest_step(self.model_dir), steps, time.monotonic() - started, stop)

    def _train_alone(self) -> Metrics:
        evaluator = self.evaluator()
        hooks, listeners = self._hooks(), []
        if evaluator:
            evaluator.look_back(self.start_step, self.requests)
            if evaluator.rules.in_memory:
                hooks.append(InMemoryHook(evaluator, self.requests, self.total))
            else:
                listeners.append(self._listener(evaluator))
        for phase, end in self.parts():
            if self.requests.stop or not self._train_part(phase, end, hooks, listeners):
                break
        return self._finish(evaluator)

    def _train_part(self, phase: int | None, end: int, hooks: Sequence[Any], listeners: Sequence[Any]) -> bool:
        """Trains until a phase ends; returns whether the next phase may begin."""
        model, reached = self.estimator(phase), ReachedHook()
        last = [reached, self.saver(listeners, self.model_dir), StopHook(self.requests, self.total)]
        try:
            model.train(self.train_input, max_steps=end, hooks=[*hooks, *last])
        except EvaluationStopped:
            return False
        reached.check_saved(self.model_dir)
        report_early_end(self.requests, latest_step(self.model_dir), end)
        return True

    def _train_as_chief(self) -> Metrics:
        """Trains and saves; evaluates if no evaluator has joined."""
        with rendezvous.Chief(self.model_dir, self.settings) as chief:
            if latest_step(self.model_dir) >= self.total:
                time.sleep(_JOIN_SECS)  # otherwise the others would wait for a chief that has already left
                chief.end(rendezvous.DONE)
                return {} if chief.has_evaluator() else self._finish(self.evaluator())
            self.requests.watch(chief.evaluators_stop_request)
            evaluator, listeners = self.evaluator(), []
            if evaluator:
                listener = self._listener(evaluator)
                listeners.append(UnlessEvaluated(listener, chief.has_evaluator, self.synchronous))
            reached = ReachedHook()
            with contextlib.suppress(EvaluationStopped):
                hooks = [following.ReadyHook(chief), reached]
                self._train_in_cluster(hooks, [self.saver(listeners, self.model_dir)])
                report_early_end(self.requests, latest_step(self.model_dir), self.total)
            reached.check_saved(self.model_dir)
            stop = self.requests.stop
            if stop:
                chief.end(rendezvous.STOPPED if stop.resumes else rendezvous.DONE, stop.reason)
            else:
                chief.end(rendezvous.DONE)
            return {} if chief.has_evaluator() else self._finish(evaluator)

    def _train_as_worker(self, follower: rendezvous.Follower) -> Metrics:
        """Trains until the chief reports the end of the run."""
        self.requests.watch(lambda: following.stop_from_chief(follower))
        follower.wait_until_ready(self.synchronous, self.requests.pending)
        if follower.is_running and not self.requests.stop:
            with tempfile.TemporaryDirectory() as folder, following.exiting_after_chief(follower):
                # Synchronous tasks must also save together, because saving sums the variables of which each task has
                # its own copy. Only the chief's checkpoint is kept.
                self._train_in_cluster([], [self.saver([], folder)] if self.synchronous else [])
        if self.synchronous and self.requests.stop:  # the tasks agreed to stop, and only the chief knows the reason
            following.adopt_stop_reason(self.requests, follower)
        return {}

    def _train_in_cluster(self, hooks: Sequence[Any], saver: Sequence[Any]) -> None:
        assert self.cluster
        stopping = StopHook(self.requests, self.total, agree=self.synchronous)
        hooks = [*self._hooks(), *hooks, stopping, *saver]
        model = self.estimator(None)
        if self.synchronous:
            spec = estimator.TrainSpec(self.train_input, max_steps=self.total, hooks=hooks)
            with servers.naming_port_conflict(self.cluster):
                estimator.train_and_evaluate(model, spec, estimator.EvalSpec(self.train_input, steps=1))
            return
        server = None
        if self.cluster.is_distributed:  # a chief whose only peer is an evaluator trains without a server
            server = servers.start(self.cluster, model.config.session_config)
        model.train(self.train_input, max_steps=self.total, hooks=hooks)
        del server

    def _evaluate(self, follower: rendezvous.Follower) -> Metrics:
        """Evaluates each newest checkpoint until the run has ended, then does the final exports."""
        follower.announce_evaluator()
        self.requests.watch(lambda: following.stop_from_chief(follower))
        evaluator, seen = self.evaluator(), None
        assert evaluator, "there is something to evaluate on"
        earliest = time.monotonic() + self.evaluator_delay_secs
        while True:
            follower.check_alive()
            ended = follower.state == rendezvous.DONE  # read before the checkpoints, so that the last is not missed
            checkpoints = listed_checkpoints(self.model_dir)
            newest = checkpoints[-1] if checkpoints else None
            stop = self.requests.pending()
            if stop and stop.resumes:
                return {}
            if newest and newest != seen and (ended or time.monotonic() >= earliest):
                earliest = time.monotonic() + self.throttle_secs
                try:
                    reason = evaluator.evaluate(newest)
                except EvaluationStopped:
                    return {}
                except (tf.errors.NotFoundError, ValueError):
                    if os.path.exists(f"{newest}.index"):
                        raise
                    continue  # the chief has deleted this checkpoint; a newer one exists
                seen = newest
                if reason and not ended:
                    follower.announce_evaluator(stop_request=reason)
            elif ended:
                evaluator.finish()
                return evaluator.metrics or {}
            else:
                time.sleep(0.5)

    def _finish(self, evaluator: Evaluator | None) -> Metrics:
        """Evaluates the last checkpoint, unless the run continues later."""
        stop = self.requests.stop
        if evaluator is None or (stop and stop.resumes):
            return {}
        return finish(evaluator, latest_step(self.model_dir))

    def _hooks(self) -> list[Any]:
        watchdog = [StallWatchdog(self.stall_minutes)] if self.stall_minutes else []
        return [*watchdog, *self.hooks()]

    def _listener(self, evaluator: Evaluator) -> EvaluationListener:
        return EvaluationListener(
            evaluator, self.requests, self.start_step, self.total, self.evaluated_every, self.throttle_secs
        )
