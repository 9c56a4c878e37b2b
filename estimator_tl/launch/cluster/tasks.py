"""What each task of a cluster does: chief and workers train, parameter servers serve, an evaluator evaluates.

Parameter servers are Estimator's classic ones: each worker trains by itself on variables that the servers hold.
MultiWorkerMirrored is run by TensorFlow's distribute coordinator. In both, one gated graph serves all phases: nobody
could start its server a second time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from estimator_tl.compat import estimator, tf
from estimator_tl.errors import STALLED_EXIT_CODE, STOPPED_EXIT_CODE, LostPeersError, UserError
from estimator_tl.inputs import latest_step
from estimator_tl.launch import loop
from estimator_tl.launch.cluster import rendezvous
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.launch.evaluating.evaluation import Evaluator, Metrics
from estimator_tl.launch.loop import EvaluationListener
from estimator_tl.launch.stopping import EvaluationStopped, Stop, StopHook, StopRequests
from estimator_tl.tf_internals.files.checkpoint_state import listed_checkpoints

_LOOK_SECS = 2.0
_JOIN_SECS = 6.0
_END_SECS = 60.0
_LEAVE_SECS = 10.0  # for a worker to end its step once the chief has ended
_HANDOVER_SECS = 20.0  # for the chief to save once a server was told to stop; Kubernetes kills after 30


@dataclasses.dataclass(frozen=True)
class Job:
    """What the tasks of a cluster do together.

    Attributes:
      cluster: with this task.
      make_estimator: returns this task's Estimator; called once its turn has come.
      train_input: the input_fn of training.
      total: the global step where training ends.
      make_saver: returns the hook that saves, given its listeners and the folder.
      hooks: of training in every task.
      chief_hooks: of training in the chief alone.
      make_evaluator: returns what evaluates, of this process alone; None without evaluation.
      make_listener: makes an evaluator evaluate checkpoints while training.
      requests: what may end training early.
      synchronous: whether all workers make each step together.
      settings: plain values that all tasks must have in common.
      throttle_secs: at least between two evaluations.
      evaluator_delay_secs: before an evaluator's first evaluation, unless the run has ended.
    """

    cluster: Cluster
    make_estimator: Callable[[], Any]
    train_input: Callable[..., Any]
    total: int
    make_saver: Callable[[Sequence[Any], str], Any]
    hooks: Sequence[Any]
    chief_hooks: Sequence[Any]
    make_evaluator: Callable[[], Evaluator] | None
    make_listener: Callable[[Evaluator], EvaluationListener]
    requests: StopRequests
    synchronous: bool
    settings: Mapping[str, Any]
    throttle_secs: float = 0.0
    evaluator_delay_secs: float = 0.0


class _ReadyHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Tells the other tasks that variables are initialized; they would look for themselves every 30 seconds only."""

    def __init__(self, mark: rendezvous.Chief):
        self._mark = mark

    def after_create_session(self, session: Any, coord: Any) -> None:
        self._mark.ready()


def run_chief(job: Job, model_dir: str) -> Metrics:
    """Trains and saves; evaluates where no evaluator has joined."""
    with rendezvous.Chief(model_dir, job.settings) as mark:
        if latest_step(model_dir) >= job.total:
            time.sleep(_JOIN_SECS)  # or the others would wait for a chief that has nothing to do for them
            mark.end(rendezvous.DONE)
            return {} if mark.has_evaluator() else _finish(job, model_dir)
        job.requests.watch(mark.evaluators_wish)
        evaluator = job.make_evaluator() if job.make_evaluator else None
        listener = job.make_listener(evaluator) if evaluator else None
        listeners = [_UnlessEvaluated(listener, mark, job.synchronous)] if listener else []
        reached = loop.ReachedHook()
        with contextlib.suppress(EvaluationStopped):
            _train(job, [*job.chief_hooks, _ReadyHook(mark), reached], [job.make_saver(listeners, model_dir)])
            loop.ask_where_a_hook_stopped(job.requests, latest_step(model_dir), job.total)
        reached.check_saved(model_dir)
        stop = job.requests.stop
        mark.end(rendezvous.STOPPED if stop and stop.resumes else rendezvous.DONE, stop.reason if stop else "")
        if (stop and stop.resumes) or evaluator is None or mark.has_evaluator():
            return {}
        return loop.finish(evaluator, latest_step(model_dir))


def run_worker(job: Job, follower: rendezvous.Follower) -> None:
    """Trains until the chief says that the run has ended."""
    job.requests.watch(lambda: _chiefs_word(follower))
    follower.wait_until_ready(job.synchronous, job.requests.pending)
    if follower.is_running and not job.requests.stop:
        with tempfile.TemporaryDirectory() as folder, _not_outliving_the_chief(follower):
            # Where tasks make each step together they have to save together too: variables that each has its own
            # copy of are summed up for it. Only the chief's checkpoint is kept.
            _train(job, [], [job.make_saver([], folder)] if job.synchronous else [])
    if job.synchronous and job.requests.stop:  # agreed on; the chief knows what for
        _take_reason(job.requests, follower)


def run_server(cluster: Cluster, follower: rendezvous.Follower, requests: StopRequests, session_config: Any) -> None:
    """Holds variables until the run has ended; unlike TensorFlow's own, which has to be killed.

    A signal is no end by itself: the chief, which hears it too, still has to save what is held here.
    """
    server = _start_server(cluster, session_config)
    told: float | None = None
    while follower.is_running:
        follower.check_alive()
        if requests.stop and told is None:
            told = time.monotonic()
        if told is not None and time.monotonic() - told > _HANDOVER_SECS:
            return
        time.sleep(0.5)
    word = _chiefs_word(follower)
    if word:
        requests.ask(word.reason, word.resumes)
        time.sleep(_LOOK_SECS)  # until workers have seen it as well, whose steps need this server
    del server


def run_evaluator(job: Job, follower: rendezvous.Follower, model_dir: str) -> Metrics:
    """Evaluates the newest checkpoint whenever there is one, until the run has ended, and exports at last."""
    assert job.make_evaluator, "there is something to evaluate on"
    follower.wish("")
    job.requests.watch(lambda: _chiefs_word(follower))
    evaluator, seen = job.make_evaluator(), None
    earliest = time.monotonic() + job.evaluator_delay_secs
    while True:
        follower.check_alive()
        ended = follower.state == rendezvous.DONE  # looked at before the checkpoint, so that the last is not missed
        listed = listed_checkpoints(model_dir)
        newest = listed[-1] if listed else None
        stop = job.requests.pending()
        if stop and stop.resumes:
            return {}
        if newest and newest != seen and (ended or time.monotonic() >= earliest):
            earliest = time.monotonic() + job.throttle_secs
            try:
                reason = evaluator.evaluate(newest)
            except EvaluationStopped:
                return {}
            except (tf.errors.NotFoundError, ValueError):
                if os.path.exists(f"{newest}.index"):
                    raise
                continue  # the chief has deleted it meanwhile; there is a newer one
            seen = newest
            if reason and not ended:
                follower.wish(reason)
        elif ended:
            evaluator.finish()
            return evaluator.metrics or {}
        else:
            time.sleep(0.5)


def _train(job: Job, first_hooks: Sequence[Any], saver: Sequence[Any]) -> None:
    hooks = [*job.hooks, *first_hooks, StopHook(job.requests, job.total, agree=job.synchronous), *saver]
    model = job.make_estimator()
    if job.synchronous:
        spec = estimator.TrainSpec(job.train_input, max_steps=job.total, hooks=hooks)
        with _naming_a_taken_port(job.cluster):
            estimator.train_and_evaluate(model, spec, estimator.EvalSpec(job.train_input, steps=1))
        return
    # A chief with nobody but an evaluator trains by itself.
    server = _start_server(job.cluster, model.config.session_config) if job.cluster.is_distributed else None
    model.train(job.train_input, max_steps=job.total, hooks=hooks)
    del server


def _start_server(cluster: Cluster, session_config: Any) -> Any:
    spec = tf.train.ClusterSpec({name: dict(addresses) for name, addresses in cluster.tasks.items()})
    with _naming_a_taken_port(cluster):
        return tf.distribute.Server(spec, cluster.job, cluster.index, config=session_config)


@contextlib.contextmanager
def _naming_a_taken_port(cluster: Cluster) -> Iterator[None]:
    try:
        yield
    except tf.errors.UnknownError as error:
        if "Could not start gRPC server" not in error.message:
            raise
        raise UserError(
            f"{cluster.name} cannot listen at {cluster.address()} ({error.message}); its port is taken: end "
            "the process that has it, or use another one."
        ) from error


@contextlib.contextmanager
def _not_outliving_the_chief(follower: rendezvous.Follower) -> Iterator[None]:
    """A block that does not last much longer than the run, nor than the chief.

    TensorFlow waits for ever, deep inside, for the variables of servers that have left and for workers that are gone.
    """
    left = threading.Event()

    def watch() -> None:
        while not left.wait(1.0):
            try:
                follower.check_alive()
            except LostPeersError as error:
                _leave(f"error: {error}", STALLED_EXIT_CODE)
            if not (follower.is_running or left.wait(_LEAVE_SECS) or follower.is_running):
                code = 0 if follower.state == rendezvous.DONE else STOPPED_EXIT_CODE
                _leave("the run has ended before this task could make its next step", code)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        left.set()


def _leave(why: str, code: int) -> None:
    print(why, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)  # the main thread hangs


def _chiefs_word(follower: rendezvous.Follower) -> Stop | None:
    follower.look(at_most_every=_LOOK_SECS)
    if follower.state == rendezvous.STOPPED:
        return Stop(f"the chief was stopped: {follower.reason}", resumes=True)
    if follower.state == rendezvous.DONE:
        return Stop(follower.reason, resumes=False)
    return None


def _take_reason(requests: StopRequests, follower: rendezvous.Follower) -> None:
    until = time.monotonic() + _END_SECS
    while time.monotonic() < until:
        word = _chiefs_word(follower)
        if word:
            requests.stop = word
            return
        time.sleep(0.2)


def _finish(job: Job, model_dir: str) -> Metrics:
    """Evaluates a run that has nothing left to train."""
    if job.make_evaluator is None:
        return {}
    return loop.finish(job.make_evaluator(), latest_step(model_dir))


class _UnlessEvaluated(tf.compat.v1.train.CheckpointSaverListener):  # type: ignore[misc]
    """A listener that leaves the work to an evaluator where there is one."""

    def __init__(self, listener: EvaluationListener, mark: rendezvous.Chief, synchronous: bool):
        self._listener, self._mark, self._synchronous = listener, mark, synchronous

    def after_save(self, session: Any, global_step_value: int) -> bool:
        """Returns whether training ends with this step; tasks that make it together agree on the next one."""
        if self._mark.has_evaluator():
            return False
        return self._listener.after_save(session, global_step_value) and not self._synchronous
