"""Ends of training before its last step: signals, limits, decisions of an evaluation; agreed on by all replicas."""

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

_SIGNALS = ("SIGTERM", "SIGUSR1")
_GRACE_SECS = 120.0
_IDLE_GRACE_SECS = 10.0


@dataclasses.dataclass(frozen=True)
class Stop:
    """Why training ends early.

    Attributes:
      reason: in words.
      resumes: whether somebody is to start the run again, as after a signal.
    """

    reason: str
    resumes: bool


class StopRequests:
    """What asks for the end of training. The first request counts.

    Attributes:
      stop: the request; None as long as training is to go on.
      stepping: whether a training session is there, whose steps are to be saved.
    """

    def __init__(self, max_hours: float | None = None):
        """Args: max_hours: from now, after which training ends."""
        self.stop: Stop | None = None
        self.stepping = False
        self._hours = max_hours
        self._until = None if max_hours is None else time.monotonic() + max_hours * 3600
        self._others: list[Callable[[], Stop | None]] = []

    def ask(self, reason: str, resumes: bool) -> None:
        """Asks for the end of training."""
        self.stop = self.stop or Stop(reason, resumes)

    def watch(self, other: Callable[[], Stop | None]) -> None:
        """Adds something that is asked at each step, e.g. another task."""
        self._others.append(other)

    def pending(self) -> Stop | None:
        """Returns the request, if there is one by now."""
        if self.stop is None and self._until is not None and time.monotonic() >= self._until:
            self.ask(f"--max_run_hours={self._hours:g} have passed", resumes=False)
        for other in self._others:
            found = None if self.stop else other()
            if found:
                self.ask(found.reason, found.resumes)
        return self.stop


class StopHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Ends training after the step in which it is asked for; the saver then saves that step.

    Under a strategy over several tasks all of them have to end with the same step, or the others would wait for ever
    for the one that is gone. So each raises its hand in a sum over all tasks that is part of the step.

    It also says when the data of training end before the last step, which Estimator takes for a good end: a session
    whose input is exhausted leaves the hooks' call for a step without its end, and then ends them all.
    """

    def __init__(self, requests: StopRequests, total: int, agree: bool = False):
        """Prepares the hook.

        Args:
          requests: what may ask; told when the data end.
          total: the global step where training ends.
          agree: whether to sum over the replicas of the strategy.
        """
        self._requests, self._total, self._agree = requests, total, agree
        self._step: Any = None
        self._hands: Any = None
        self._hand: Any = None
        self._in_step = self._has_stepped = False

    def begin(self) -> None:
        self._step = tf.compat.v1.train.get_global_step()
        self._in_step = self._has_stepped = False
        if self._agree:
            self._hand = tf.compat.v1.placeholder_with_default(0.0, [], name="stop_hand")
            strategy = tf.distribute.get_strategy()
            self._hands = strategy.reduce(
                tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.identity(self._hand)), axis=None
            )

    def after_create_session(self, session: Any, coord: Any) -> None:
        self._requests.stepping = True

    def end(self, session: Any) -> None:
        self._requests.stepping = False
        if self._in_step:
            self._tell_end_of_data(int(session.run(self._step)))

    def before_run(self, run_context: Any) -> Any:
        self._in_step = True
        if not self._agree:
            return None
        return tf.compat.v1.train.SessionRunArgs(self._hands, {self._hand: 1.0 if self._requests.pending() else 0.0})

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._in_step, self._has_stepped = False, True
        if self._agree:
            if run_values.results > 0:
                self._requests.ask("another task was asked to stop", resumes=True)
                run_context.request_stop()
        elif self._requests.pending():
            run_context.request_stop()

    def _tell_end_of_data(self, step: int) -> None:
        """Asks for the end of training.

        Raises:
          UserError: a new run has no data at all.
        """
        if step == 0 and not self._has_stepped:
            raise UserError("the input_fn of training gives no batch, so that nothing is trained; check its data.")
        self._requests.ask(f"the training data ended before step {self._total}", resumes=False)


class StopEvaluationHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Leaves an evaluation in which a signal arrives; its metrics would be of a part of the data."""

    def __init__(self, requests: StopRequests):
        """Args: requests: what may ask."""
        self._requests = requests

    def after_run(self, run_context: Any, run_values: Any) -> None:
        if self._requests.stop and self._requests.stop.resumes:
            raise EvaluationStopped


class EvaluationStopped(Exception):
    """An evaluation was left because the process is to stop; the checkpoint that it is of has been saved."""


def ask_where_a_hook_stopped(requests: StopRequests, step: int, end: int) -> None:
    """Asks for the end of training where it has ended early without a request: by a hook of the program.

    Args:
      requests: told.
      step: the global step reached.
      end: the one that was to be reached.
    """
    if step < end:
        requests.ask(f"a hook of the program ended training before step {end}", resumes=False)


@contextlib.contextmanager
def stopping_at_signals(requests: StopRequests, grace_secs: float = _GRACE_SECS) -> Iterator[None]:
    """A block in which SIGTERM, and SIGUSR1 as Slurm sends it before a time limit, ask for the end of training.

    A thread of its own hears of them at once, while the main thread may be inside of TensorFlow for long. If the
    process is still there after `grace_secs`, it leaves without saving: its step waits for tasks that are gone. Where
    there is no step to wait for, 10 s are enough.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals
        return
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    wakeup = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    names = {getattr(signal, name): name for name in _SIGNALS if hasattr(signal, name)}
    before = {number: signal.signal(number, lambda *_: None) for number in names}
    listener = threading.Thread(target=_listen, args=(receiving, requests, names, grace_secs), daemon=True)
    listener.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        sending.close()
        listener.join(timeout=5)
        receiving.close()


def _listen(receiving: socket.socket, requests: StopRequests, names: dict[Any, str], grace_secs: float) -> None:
    heard = ""
    while True:
        grace = grace_secs if requests.stepping else min(grace_secs, _IDLE_GRACE_SECS)
        receiving.settimeout(grace if heard else None)
        try:
            received = receiving.recv(1)
        except (TimeoutError, socket.timeout):
            print(f"error: no step ended within {grace:g} s after {heard}; the last checkpoint is kept, run the "
                  "same command to go on.", file=sys.stderr, flush=True)  # fmt: skip
            os._exit(STOPPED_EXIT_CODE)
        if not received:
            return
        if received[0] in names:
            heard = names[received[0]]
            requests.ask(heard, resumes=True)
