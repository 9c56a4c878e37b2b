"""Stops training before its last step: after signals, limits or an evaluation, at a step that all tasks agree on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import STOPPED_EXIT_CODE, UserError
from estimator_tl.types import RunContext, RunValues, Session

_SIGNALS = ("SIGTERM", "SIGUSR1")
_GRACE_SECS = 120.0
_IDLE_GRACE_SECS = 10.0


@dataclasses.dataclass(frozen=True)
class Stop:
    """Why training ends early.

    Attributes:
      reason: the reason, for messages.
      resumes: whether the run should be started again, as after a signal.
    """

    reason: str
    resumes: bool


class StopRequests:
    """Collects requests to stop training. The first request counts.

    Attributes:
      stop: the request; None while training continues.
      stepping: whether a training session exists, whose step should be saved.
    """

    def __init__(self, max_hours: float | None = None):
        """Args: max_hours: hours from now after which training stops."""
        self.stop: Stop | None = None
        self.stepping = False
        self._hours = max_hours
        self._deadline = None if max_hours is None else time.monotonic() + max_hours * 3600
        self._sources: list[Callable[[], Stop | None]] = []

    def ask(self, reason: str, resumes: bool) -> None:
        """Requests that training stops."""
        self.stop = self.stop or Stop(reason, resumes)

    def watch(self, source: Callable[[], Stop | None]) -> None:
        """Adds a function that is called at each step, e.g. to look at another task."""
        self._sources.append(source)

    def pending(self) -> Stop | None:
        """Returns the request, if there is one now."""
        if self.stop is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.ask(f"--max_run_hours={self._hours:g} have passed", resumes=False)
        for source in self._sources:
            if self.stop:
                break
            stop = source()
            if stop:
                self.ask(stop.reason, stop.resumes)
        return self.stop


class StopHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Stops training after the step in which a stop is requested; the saver then saves that step.

    Under a strategy over several tasks all tasks must stop after the same step, because they would wait without limit
    for a task that has left. So each step sums a stop vote over all tasks.

    The hook also reports training data that end before the last step, which Estimator takes for a regular end. When the
    input is exhausted, the session skips `after_run` of that step and calls `end`.
    """

    def __init__(self, requests: StopRequests, total: int, agree: bool = False):
        """Prepares the hook.

        Args:
          requests: the stop requests; the end of the data becomes one.
          total: the global step where training ends.
          agree: whether to sum the votes over the replicas of the strategy.
        """
        self._requests, self._total, self._agree = requests, total, agree
        self._step: Any = None
        self._votes: Any = None
        self._vote: Any = None
        self._in_step = self._has_stepped = False

    def begin(self) -> None:
        self._step = tf.compat.v1.train.get_global_step()
        self._in_step = self._has_stepped = False
        if self._agree:
            self._vote = tf.compat.v1.placeholder_with_default(0.0, [], name="stop_vote")
            strategy = tf.distribute.get_strategy()
            self._votes = strategy.reduce(
                tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.identity(self._vote)), axis=None
            )

    def after_create_session(self, session: Session, coord: Any) -> None:
        self._requests.stepping = True

    def end(self, session: Session) -> None:
        self._requests.stepping = False
        if self._in_step:
            self._request_at_end_of_data(int(session.run(self._step)))

    def before_run(self, run_context: RunContext) -> Any:
        self._in_step = True
        if not self._agree:
            return None
        vote = float(self._requests.pending() is not None)
        return tf.compat.v1.train.SessionRunArgs(self._votes, {self._vote: vote})

    def after_run(self, run_context: RunContext, run_values: RunValues) -> None:
        self._in_step, self._has_stepped = False, True
        if self._agree:
            if run_values.results > 0:
                self._requests.ask("another task was asked to stop", resumes=True)
                run_context.request_stop()
        elif self._requests.pending():
            run_context.request_stop()

    def _request_at_end_of_data(self, step: int) -> None:
        """Requests that training stops, as its data have ended.

        Raises:
          UserError: a new run has no data at all.
        """
        if step == 0 and not self._has_stepped:
            raise UserError("the input_fn of training gives no batch, so nothing is trained; check its data.")
        self._requests.ask(f"the training data ended before step {self._total}", resumes=False)


class StopEvaluationHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Ends an evaluation when a signal arrives; its metrics would cover only a part of the data."""

    def __init__(self, requests: StopRequests):
        """Args: requests: the stop requests."""
        self._requests = requests

    def after_run(self, run_context: RunContext, run_values: RunValues) -> None:
        if self._requests.stop and self._requests.stop.resumes:
            raise EvaluationStopped


class EvaluationStopped(Exception):
    """An evaluation ended early because the process should stop; its checkpoint has been saved."""


def report_early_end(requests: StopRequests, step: int, end: int) -> None:
    """Adds a stop request if a hook of the program ended training early, which is the only cause without a request.

    Args:
      requests: gets the request.
      step: the global step reached.
      end: the global step where training should end.
    """
    if step < end:
        requests.ask(f"a hook of the program ended training before step {end}", resumes=False)


@contextlib.contextmanager
def stopping_at_signals(requests: StopRequests, grace_secs: float = _GRACE_SECS) -> Iterator[None]:
    """A block in which SIGTERM and SIGUSR1 (which Slurm sends before a time limit) request that training stops.

    A separate thread receives the signals at once, as the main thread may be inside TensorFlow for long. If the process
    still runs after `grace_secs`, it exits without saving, as its step waits for tasks that have left. Outside a
    training session it exits after at most 10 s.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals
        return
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    wakeup = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    names = {getattr(signal, name): name for name in _SIGNALS if hasattr(signal, name)}
    previous = {number: signal.signal(number, lambda *_: None) for number in names}
    listener = threading.Thread(target=_listen, args=(receiving, requests, names, grace_secs), daemon=True)
    listener.start()
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        sending.close()
        listener.join(timeout=5)
        receiving.close()


def _listen(receiving: socket.socket, requests: StopRequests, names: dict[Any, str], grace_secs: float) -> None:
    signal_name = ""
    while True:
        grace = grace_secs if requests.stepping else min(grace_secs, _IDLE_GRACE_SECS)
        receiving.settimeout(grace if signal_name else None)
        try:
            received = receiving.recv(1)
        except (TimeoutError, socket.timeout):
            print(f"error: no step ended within {grace:g} s after {signal_name}; the last checkpoint is kept, run the "
                  "same command to go on.", file=sys.stderr, flush=True)  # fmt: skip
            os._exit(STOPPED_EXIT_CODE)
        if not received:
            return
        if received[0] in names:
            signal_name = names[received[0]]
            requests.ask(signal_name, resumes=True)
