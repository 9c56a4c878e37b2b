"""How the chief's end reaches the other tasks, and its beginning."""

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

LOOK_SECS = 2.0
_END_SECS = 60.0
_LEAVE_SECS = 10.0  # for a worker to end its step once the chief has ended


class ReadyHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Tells the other tasks that variables are initialized; they would look for themselves every 30 seconds only."""

    def __init__(self, chief: rendezvous.Chief):
        """Args: chief: of this run."""
        self._chief = chief

    def after_create_session(self, session: Any, coord: Any) -> None:
        self._chief.ready()


def end_of_the_chief(follower: rendezvous.Follower) -> Stop | None:
    """Returns the end of training that the chief tells; None while it trains."""
    follower.look(at_most_every=LOOK_SECS)
    if follower.state == rendezvous.STOPPED:
        return Stop(f"the chief was stopped: {follower.reason}", resumes=True)
    if follower.state == rendezvous.DONE:
        return Stop(follower.reason, resumes=False)
    return None


def take_reason(requests: StopRequests, follower: rendezvous.Follower) -> None:
    """Waits for the chief to tell why training ends, and makes that the reason of this task."""
    until = time.monotonic() + _END_SECS
    while time.monotonic() < until:
        end = end_of_the_chief(follower)
        if end:
            requests.stop = end
            return
        time.sleep(0.2)


@contextlib.contextmanager
def not_outliving_the_chief(follower: rendezvous.Follower) -> Iterator[None]:
    """A block that does not last much longer than the run, nor than the chief.

    TensorFlow waits without end for the variables of servers that have left and for workers that are gone.
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
