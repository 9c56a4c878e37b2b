"""Exits a process that hangs."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TextIO

from estimator_tl.compat import tf
from estimator_tl.errors import STALLED_EXIT_CODE
from estimator_tl.launch.hooks.counting import CountingHook
from estimator_tl.types import RunContext, RunValues, Session


class StallWatchdog(CountingHook):
    """Exits the process if a step or the start of a session hangs, after it writes all Python stacks to a stream.

    Only time within a call of the session counts. Hooks and listeners may take any time after a step, e.g. to evaluate.
    """

    def __init__(self, minutes: float, leave: Callable[[int], Any] = os._exit, stream: TextIO | None = None):
        """Prepares the hook.

        Args:
          minutes: the limit in minutes without a step; may be a fraction.
          leave: exits with the given code. `sys.exit` would wait for the threads that hang.
          stream: a stream with a file descriptor; standard error by default.
        """
        super().__init__()
        self._seconds = minutes * 60
        self._leave = leave
        self._stream = stream or sys.stderr
        self._thread = 0
        self._session: Callable[[], Any] = lambda: None
        self._awaited = ""
        self._since: float | None = None
        self._ended = threading.Event()

    def begin(self) -> None:
        super().begin()
        self._thread = threading.get_ident()
        # The constructor of the session calls `begin`, so the session is already on the stack.
        self._session = weakref.ref(_session_in_call(self._thread))
        self._awaited = "a session"
        self._since = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, args=[self._ended], name="stall watchdog", daemon=True).start()

    def after_create_session(self, session: Session, coord: Any) -> None:
        super().after_create_session(session, coord)
        self._since = None

    def before_run(self, run_context: RunContext) -> None:
        self._awaited = f"step {self.step + 1}"
        self._since = time.monotonic()

    def after_run(self, run_context: RunContext, run_values: RunValues) -> None:
        self._since = None
        super().after_run(run_context, run_values)

    def end(self, session: Session) -> None:
        self._ended.set()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(min(self._seconds / 10, 5.0)):
            session = self._session()
            if session is None:  # it ended with an error, after which hooks get no call
                return
            since = self._since
            if since is None or time.monotonic() - since < self._seconds:
                continue
            if _session_in_call(self._thread) is not session:
                return  # the call ended with an error
            self._stop(time.monotonic() - since)
            return

    def _stop(self, seconds: float) -> None:
        faulthandler.dump_traceback(file=self._stream, all_threads=True)
        self._stream.write(
            f"error: {self._awaited} has taken {seconds / 60:.3g} minutes, which is a stall (the stacks are above); "
            f"this process exits with code {STALLED_EXIT_CODE}, start it again to go on from the newest checkpoint.\n"
        )
        self._stream.flush()
        self._leave(STALLED_EXIT_CODE)


def _session_in_call(thread: int) -> Any:
    """Returns the innermost monitored session whose method a thread is running; None outside of such methods."""
    kinds = (tf.compat.v1.train.MonitoredSession, tf.compat.v1.train.SingularMonitoredSession)
    frame: Any = sys._current_frames().get(thread)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, kinds):
            return owner
        frame = frame.f_back
    return None
