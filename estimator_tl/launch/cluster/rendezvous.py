"""How the tasks of a cluster find each other, through the run directory that they share.

The chief writes a status file with a heartbeat there. The other tasks learn from it that they share the directory,
whether their settings are the chief's, when the chief's variables are ready, and how the run ended.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from estimator_tl.errors import LostPeersError, UserError
from estimator_tl.files import write_whole
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.launch.cluster.peers import Answer, reach, reach_all
from estimator_tl.launch.stopping import Stop

FILE = "launch.json"
EVALUATOR_FILE = "evaluator.json"
STARTING, RUNNING, DONE, STOPPED = "starting", "running", "done", "stopped"
_HEARTBEAT_SECS = 2.0
_UNSEEN_SECS = 30.0  # network file systems show a new file with a delay


class Chief:
    """The status that the chief writes into the run directory; a context manager around training.

    Leaving the block without a call of `end` reports that the chief was stopped.
    """

    def __init__(self, model_dir: str, settings: Mapping[str, Any]):
        """Args: model_dir: the run directory. settings: plain values that must be equal in all tasks."""
        self._path = Path(model_dir, FILE)
        self._values: dict[str, Any] = {
            "settings": settings,
            "started": time.time(),
            "state": STARTING,
            "reason": "",
            "heartbeat": 0,
        }
        self._closed = threading.Event()
        self._last_look = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> Chief:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._closed.set()
        if self._values["state"] in (STARTING, RUNNING):
            self.end(STOPPED, f"the chief failed: {error}" if error else "the chief left")

    def ready(self) -> None:
        """Reports that the variables are initialized."""
        self._values["state"] = RUNNING
        self._write()

    def end(self, state: str, reason: str = "") -> None:
        """Reports how the run ended. Args: state: DONE or STOPPED. reason: why it ended."""
        self._values.update(state=state, reason=reason)
        self._write()

    def has_evaluator(self) -> bool:
        """True if an evaluator has joined this launch."""
        status = _read(self._path.parent / EVALUATOR_FILE)
        return bool(status) and status.get("launch") == self._values["started"]

    def evaluators_stop_request(self) -> Stop | None:
        """Returns the evaluator's request to stop training, if any; reads the file at most every 2 seconds."""
        now = time.monotonic()
        if now - self._last_look < _HEARTBEAT_SECS:
            return None
        self._last_look = now
        status = _read(self._path.parent / EVALUATOR_FILE)
        if status.get("launch") == self._values["started"] and status.get("stop_request"):
            return Stop(status["stop_request"], resumes=False)
        return None

    def _beat(self) -> None:
        while not self._closed.wait(_HEARTBEAT_SECS):
            self._write()

    def _write(self) -> None:
        with self._lock:
            self._values["heartbeat"] += 1
            write_whole(self._path, json.dumps(self._values) + "\n", lasting=False)


class Follower:
    """Another task's view of the chief's status.

    Attributes:
      state: the state of the run at the last look.
      reason: why the run ended.
    """

    def __init__(self, model_dir: str, cluster: Cluster, settings: Mapping[str, Any], wait_secs: float):
        """Prepares to follow the chief.

        Args:
          model_dir: the run directory.
          cluster: the cluster, with this task.
          settings: the settings of this task.
          wait_secs: how long to wait for the chief, at the beginning and whenever its heartbeat stops.
        """
        self._path = Path(model_dir, FILE)
        self._cluster = cluster
        self._settings = settings
        self._wait = wait_secs
        self._heartbeat: tuple[Any, Any] | None = None
        self._last_heartbeat: float | None = None
        self._last_look = 0.0
        self._stop_request: str | None = None
        self._values: dict[str, Any] = {}
        self.state, self.reason = "", ""

    @property
    def is_running(self) -> bool:
        """True if the run had not ended at the last look."""
        return self.state in (STARTING, RUNNING)

    def join(self, gives_up: Callable[[], Any] = bool) -> bool:
        """Waits for the chief of this launch and compares its settings with this task's.

        Args:
          gives_up: returns whether to stop waiting, e.g. after a signal.

        Returns:
          False if `gives_up` ended the wait.

        Raises:
          UserError: the chief has other settings, or writes into another directory.
          LostPeersError: the chief did not appear in time.
        """
        print(f"{self._cluster.name} waits for the chief", file=sys.stderr, flush=True)
        start, reached_at = time.monotonic(), 0.0
        while not self.look():
            if gives_up():
                return False
            now = time.monotonic()
            if not reached_at and now - start > self._wait:
                if self.state in (DONE, STOPPED):
                    return True  # this task was restarted after the end of the run
                raise LostPeersError(
                    f"the chief did not appear within {self._wait:g} s; check that it runs (`estimator-tl doctor`), "
                    "and start this task again."
                )
            if not reached_at and reach(self._cluster.tasks["chief"][0], timeout=1.0).answer is Answer.REACHED:
                reached_at = now
            if reached_at and now - reached_at > min(_UNSEEN_SECS, self._wait):
                raise UserError(
                    f"the chief {self._cluster.tasks['chief'][0]} runs, but its {FILE} does not appear in "
                    f"{self._path.parent}: the tasks do not share this directory; mount the same one at --model_dir "
                    "everywhere."
                )
            time.sleep(0.2)
        self._check_settings()
        return True

    def wait_until_ready(self, synchronous: bool = False, gives_up: Callable[[], Any] = bool) -> None:
        """Waits until the chief has initialized its variables, or the run has ended.

        In synchronous training the chief becomes ready only together with the workers, so this returns at once.
        """
        while self.state == STARTING and not synchronous and not gives_up():
            self.look()
            self.check_alive()
            time.sleep(0.2)

    def look(self, at_most_every: float = 0.0) -> bool:
        """Reads the chief's status file; returns whether a heartbeat was ever seen.

        Args:
          at_most_every: skips the read if the last look is less than this many seconds ago.
        """
        now = time.monotonic()
        if at_most_every and now - self._last_look < at_most_every:
            return self._last_heartbeat is not None
        self._last_look = now
        values = _read(self._path)
        if values:
            heartbeat = (values["started"], values["heartbeat"])
            if self._heartbeat is not None and heartbeat != self._heartbeat:
                self._last_heartbeat = now
            restarted = self._heartbeat is not None and heartbeat[0] != self._heartbeat[0]
            self._heartbeat = heartbeat
            self._values = values
            self.state, self.reason = values["state"], values["reason"]
            if restarted and self._stop_request is not None:
                self.announce_evaluator(self._stop_request)
        return self._last_heartbeat is not None

    def check_alive(self) -> None:
        """Checks that the chief's heartbeat continues.

        Raises:
          LostPeersError: there was no heartbeat for longer than this task waits.
        """
        self.look(at_most_every=_HEARTBEAT_SECS)
        if self.is_running and self._last_heartbeat and time.monotonic() - self._last_heartbeat > self._wait:
            raise LostPeersError(f"the chief has sent no heartbeat for {self._wait:g} s; start the cluster again.")

    def announce_evaluator(self, stop_request: str = "") -> None:
        """Tells the chief that this task evaluates; repeats it to a chief that is restarted.

        Args:
          stop_request: why training should stop; empty to let it continue.
        """
        self._stop_request = stop_request
        status = {"launch": self._values["started"], "stop_request": stop_request}
        write_whole(self._path.parent / EVALUATOR_FILE, json.dumps(status) + "\n")

    def _check_settings(self) -> None:
        chief, task = _flat(self._values["settings"]), _flat(self._settings)
        for name in sorted({*chief, *task}):
            if chief.get(name) != task.get(name):
                raise UserError(
                    f"{self._cluster.name} has {name} {task.get(name)!r}, but the chief has {chief.get(name)!r}; "
                    "start all tasks of a cluster with the same flags."
                )


def wait_for_names(cluster: Cluster, wait_secs: float, gives_up: Callable[[], Any] = bool) -> None:
    """Waits until the host names of all other tasks resolve.

    On Kubernetes a name resolves only once its pod exists, and TensorFlow would wait for it without limit.

    Raises:
      UserError: a name does not resolve in time.
    """
    start = time.monotonic()
    while True:
        peers = {address: name for name, address in cluster.peers()}
        unresolved = [item for item in reach_all(peers, timeout=2.0).values() if item.answer is Answer.UNRESOLVED]
        if not unresolved or gives_up():
            return
        if time.monotonic() - start > wait_secs:
            address = unresolved[0].address
            raise UserError(
                f"the host name of {peers[address]}, {address}, does not resolve within {wait_secs:g} s; correct "
                f"{cluster.source}, or raise --cluster_wait_secs if its host starts later."
            )
        time.sleep(1.0)


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings as one mapping, with names joined by dots; tuples become lists, as JSON has them."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat
