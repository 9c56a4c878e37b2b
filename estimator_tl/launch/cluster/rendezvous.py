"""The tasks of a cluster find each other through the run directory, which all of them have to see.

The chief keeps a file there with a pulse. What others read from it: that they share the directory, that their settings
are the chief's, when its variables are ready, and how the run ended.
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
_PULSE_SECS = 2.0
_UNSEEN_SECS = 30.0  # network file systems show a new file with such a delay


class Chief:
    """The chief's mark in the run directory; a context manager around training.

    Leaving it without `end` having been called says that the chief was stopped.
    """

    def __init__(self, model_dir: str, settings: Mapping[str, Any]):
        """Args: model_dir: the run. settings: plain values that all tasks must have in common."""
        self._path = Path(model_dir, FILE)
        self._values: dict[str, Any] = {
            "settings": settings,
            "started": time.time(),
            "state": STARTING,
            "reason": "",
            "pulse": 0,
        }
        self._closed = threading.Event()
        self._looked = 0.0
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
        """Says that variables are initialized."""
        self._values["state"] = RUNNING
        self._write()

    def end(self, state: str, reason: str = "") -> None:
        """Says how the run ended: DONE or STOPPED."""
        self._values.update(state=state, reason=reason)
        self._write()

    def has_evaluator(self) -> bool:
        """True where an evaluator has joined this launch."""
        mark = _read(self._path.parent / EVALUATOR_FILE)
        return bool(mark) and mark.get("launch") == self._values["started"]

    def evaluators_wish(self) -> Stop | None:
        """Returns the end of training that the evaluator asks for, looked up every other second."""
        now = time.monotonic()
        if now - self._looked < _PULSE_SECS:
            return None
        self._looked = now
        wish = _read(self._path.parent / EVALUATOR_FILE)
        if wish.get("launch") == self._values["started"] and wish.get("wish"):
            return Stop(wish["wish"], resumes=False)
        return None

    def _beat(self) -> None:
        while not self._closed.wait(_PULSE_SECS):
            self._write()

    def _write(self) -> None:
        with self._lock:
            self._values["pulse"] += 1
            write_whole(self._path, json.dumps(self._values) + "\n", lasting=False)


class Follower:
    """What another task knows of the chief.

    Attributes:
      state: of the run, as of the last look.
      reason: why it ended.
    """

    def __init__(self, model_dir: str, cluster: Cluster, settings: Mapping[str, Any], wait_secs: float):
        """Prepares to look.

        Args:
          model_dir: the run.
          cluster: with this task.
          settings: of this task.
          wait_secs: how long to wait for the chief, at the beginning and whenever its pulse stops.
        """
        self._path = Path(model_dir, FILE)
        self._cluster = cluster
        self._settings = settings
        self._wait = wait_secs
        self._pulse: tuple[Any, Any] | None = None
        self._felt: float | None = None
        self._looked = 0.0
        self._wish: str | None = None
        self._values: dict[str, Any] = {}
        self.state, self.reason = "", ""

    @property
    def is_running(self) -> bool:
        """True where the run had not ended at the last look."""
        return self.state in (STARTING, RUNNING)

    def join(self, gives_up: Callable[[], Any] = bool) -> bool:
        """Waits until the chief of this launch is there, with the same settings.

        Args:
          gives_up: asked whether to wait no longer, as after a signal.

        Returns:
          False where it has given up.

        Raises:
          UserError: it has other settings, or writes into another directory.
          LostPeersError: it did not come in time.
        """
        print(f"{self._cluster.name} waits for the chief", file=sys.stderr, flush=True)
        began, answered = time.monotonic(), 0.0
        while not self.look():
            if gives_up():
                return False
            now = time.monotonic()
            if not answered and now - began > self._wait:
                if self.state in (DONE, STOPPED):
                    return True  # a task that was started again after the end
                raise LostPeersError(
                    f"the chief did not appear within {self._wait:g} s; see that it runs (`estimator-tl doctor`), "
                    "and start this task again."
                )
            if not answered and reach(self._cluster.tasks["chief"][0], timeout=1.0).answer is Answer.REACHED:
                answered = now
            if answered and now - answered > min(_UNSEEN_SECS, self._wait):
                raise UserError(
                    f"the chief {self._cluster.tasks['chief'][0]} is there, but its {FILE} does not appear in "
                    f"{self._path.parent}: the tasks do not share this directory; mount the same one at --model_dir "
                    "everywhere."
                )
            time.sleep(0.2)
        self._check_settings()
        return True

    def wait_until_ready(self, synchronous: bool = False, gives_up: Callable[[], Any] = bool) -> None:
        """Waits until the chief has initialized its variables, or the run has ended.

        Where all make each step together the chief is ready only when the others are, so there is nothing to wait for.
        """
        while self.state == STARTING and not synchronous and not gives_up():
            self.look()
            self.check_alive()
            time.sleep(0.2)

    def look(self, at_most_every: float = 0.0) -> bool:
        """Reads what the chief says; returns whether its pulse was ever felt.

        Args:
          at_most_every: seconds after the last look in which nothing is read.
        """
        now = time.monotonic()
        if at_most_every and now - self._looked < at_most_every:
            return self._felt is not None
        self._looked = now
        values = _read(self._path)
        if values:
            pulse = (values["started"], values["pulse"])
            if self._pulse is not None and pulse != self._pulse:
                self._felt = now
            restarted = self._pulse is not None and pulse[0] != self._pulse[0]
            self._pulse = pulse
            self._values = values
            self.state, self.reason = values["state"], values["reason"]
            if restarted and self._wish is not None:
                self.wish(self._wish)
        return self._felt is not None

    def check_alive(self) -> None:
        """Checks that the chief's pulse goes on.

        Raises:
          LostPeersError: it has stopped for longer than this task waits.
        """
        self.look(at_most_every=_PULSE_SECS)
        if self.is_running and self._felt and time.monotonic() - self._felt > self._wait:
            raise LostPeersError(f"the chief has shown no pulse for {self._wait:g} s; start the cluster again.")

    def wish(self, reason: str) -> None:
        """Tells the chief, also one that is started again, that this task evaluates.

        Args:
          reason: for the end of training, which it asks for; empty to let it go on.
        """
        self._wish = reason
        mark = {"launch": self._values["started"], "wish": reason}
        write_whole(self._path.parent / EVALUATOR_FILE, json.dumps(mark) + "\n")

    def _check_settings(self) -> None:
        theirs, ours = _flat(self._values["settings"]), _flat(self._settings)
        for name in sorted({*theirs, *ours}):
            if theirs.get(name) != ours.get(name):
                raise UserError(
                    f"{self._cluster.name} has {name} {ours.get(name)!r}, but the chief has {theirs.get(name)!r}; "
                    "start all tasks of a cluster with the same flags."
                )


def wait_for_names(cluster: Cluster, wait_secs: float, gives_up: Callable[[], Any] = bool) -> None:
    """Waits until the host names of all other tasks resolve, as those of Kubernetes do once their pods are there.

    Raises:
      UserError: one does not in time; TensorFlow would wait for it for ever.
    """
    began = time.monotonic()
    while True:
        peers = {address: name for name, address in cluster.peers()}
        unknown = [item for item in reach_all(peers, timeout=2.0).values() if item.answer is Answer.UNRESOLVED]
        if not unknown or gives_up():
            return
        if time.monotonic() - began > wait_secs:
            address = unknown[0].address
            raise UserError(
                f"the host name of {peers[address]}, {address}, does not resolve within {wait_secs:g} s; correct "
                f"{cluster.source}, or raise --cluster_wait_secs where its host is still to come."
            )
        time.sleep(1.0)


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return found
