"""How the start and the end of the chief's training reach the other tasks."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import STALLED_EXIT_CODE, STOPPED_EXIT_CODE, LostPeersError
from estimator_tl.launch.cluster import rendezvous
from estimator_tl.launch.stopping import Stop, StopRequests
from estimator_tl.types import Session

LOOK_SECS = 2.0
_END_SECS = 60.0
_LEAVE_SECS = 10.0  # time for a worker to end its step after the end of the run


class ReadyHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Tells the other tasks when variables are initialized; TensorFlow alone would check only every 30 seconds."""

    def __init__(self, chief: rendezvous.Chief):
        """Args: chief: writes the status of this run."""
        self._chief = chief

    def after_create_session(self, session: Session, coord: Any) -> None:
        self._chief.ready()


def stop_from_chief(follower: rendezvous.Follower) -> Stop | None:
    """Returns why training ends, from the chief's status; None while the chief trains."""
    follower.look(at_most_every=LOOK_SECS)
    if follower.state == rendezvous.STOPPED:
        return Stop(f"the chief was stopped: {follower.reason}", resumes=True)
    if follower.state == rendezvous.DONE:
        return Stop(follower.reason, resumes=False)
    return None


def adopt_stop_reason(requests: StopRequests, follower: rendezvous.Follower) -> None:
    """Waits for the chief's reason to stop, and makes it the reason of this task."""
    until = time.monotonic() + _END_SECS
    while time.monotonic() < until:
        end = stop_from_chief(follower)
        if end:
            requests.stop = end
            return
        time.sleep(0.2)


@contextlib.contextmanager
def exiting_after_chief(follower: rendezvous.Follower) -> Iterator[None]:
    """A block during which the process exits soon after the run has ended or the chief is lost.

    TensorFlow alone would wait without limit for variables of servers that have left, and for lost workers.
    """
    block_ended = threading.Event()

    def watch() -> None:
        while not block_ended.wait(1.0):
            try:
                follower.check_alive()
            except LostPeersError as error:
                _exit(f"error: {error}", STALLED_EXIT_CODE)
            if not (follower.is_running or block_ended.wait(_LEAVE_SECS) or follower.is_running):
                code = 0 if follower.state == rendezvous.DONE else STOPPED_EXIT_CODE
                _exit("the run ended before this task could make its next step", code)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        block_ended.set()


def _exit(message: str, code: int) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)  # sys.exit would not end the main thread, which hangs
