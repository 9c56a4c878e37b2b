"""Clusters of real processes on loopback, for every test that needs more than one task.

with Cluster(folder, ["program.py", "--flag"], chief=1, worker=2, ps=1, evaluator=1) as cluster:
    cluster.start()
    cluster.wait_for_text("worker", 1, "TRAINING")
    cluster.kill("worker", 1)
    cluster.start("worker", 1)
    cluster.finish()
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO

JOBS = ("chief", "ps", "worker", "evaluator")
SERVERS_FOREVER = "ps"  # a parameter server never leaves by itself
_ROOT = Path(__file__).resolve().parent.parent
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass
class Task:
    """One task of the cluster and its process, which may be a second or third life."""

    job: str
    index: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    output: IO[bytes] | None = None

    @property
    def name(self) -> str:
        """As in "worker 1"."""
        return f"{self.job} {self.index}"

    @property
    def text(self) -> str:
        """What all lives of this task have printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def status(self) -> int | None:
        """The exit status; None while the process runs."""
        return self.process.poll() if self.process else None


class Cluster:
    """A context manager; leaving it kills whatever still runs.

    Args:
      folder: where logs are written, `JOB_INDEX.log`.
      arguments: what every task runs after `python -m estimator_tl legacy` (or after `command`).
      command: replaces that beginning.
      environment: added to every task's environment.
      evaluator_in_cluster: whether TF_CONFIG's cluster lists the evaluator: under a strategy the coordinator looks it
        up there; without one it is no part of the cluster.
      tasks: how many tasks each job has: chief, ps, worker, evaluator.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        command: Sequence[str] = (sys.executable, "-m", "estimator_tl", "legacy"),
        environment: Mapping[str, str] | None = None,
        evaluator_in_cluster: bool = False,
        **tasks: int,
    ):
        assert set(tasks) <= set(JOBS), f"jobs are {JOBS}"
        self._line = [*command, *arguments]
        self._environment = dict(environment or {})
        folder.mkdir(parents=True, exist_ok=True)
        self.tasks = {
            (job, index): Task(job, index, folder / f"{job}_{index}.log")
            for job in JOBS
            for index in range(tasks.get(job, 0))
        }
        members = [key for key in self.tasks if key[0] != "evaluator" or evaluator_in_cluster]
        ports = dict(zip(members, free_ports(len(members))))
        self.spec: dict[str, list[str]] = {}
        for key in members:
            self.spec.setdefault(key[0], []).append(f"localhost:{ports[key]}")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self.tasks.values():
            self._end(task, signal.SIGKILL)

    def start(self, job: str | None = None, index: int | None = None) -> None:
        """Starts (or restarts) the tasks of a job, one of them, or all."""
        for task in self._chosen(job, index):
            assert task.process is None or task.status is not None, f"{task.name} is running already"
            config = {"cluster": self.spec, "task": {"type": task.job, "index": task.index}}
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")])),
                "PYTHONUNBUFFERED": "1",
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "TF_CONFIG": json.dumps(config),
                **self._environment,
            }
            task.output = task.log.open("ab")
            task.process = subprocess.Popen(
                self._line,
                stdout=task.output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def kill(self, job: str, index: int, sent: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to one running task and waits for its end."""
        (task,) = self._chosen(job, index)
        assert task.status is None, f"{task.name} has ended by itself\n{self.report()}"
        self._end(task, sent)

    def wait_for_text(self, job: str, index: int, text: str, times: int = 1, timeout: float = 180) -> None:
        """Waits until a task has printed `text` (at least `times` times, over all its lives)."""
        (task,) = self._chosen(job, index)
        self.wait_until(lambda: task.text.count(text) >= times, f"{task.name} to print {text!r}", timeout)

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float = 180) -> None:
        """Waits for a condition; fails early when a task dies with an error.

        Raises:
          AssertionError: it did not come true in time, or a task failed; with the tail of every log.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            failed = [f"{task.name} (status {task.status})" for task in self.tasks.values() if task.status]
            if failed:
                raise AssertionError(f"failed while waiting for {what}: {', '.join(failed)}\n{self.report()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not happen within {timeout:g} s\n{self.report()}")
            time.sleep(0.1)

    def finish(self, timeout: float = 180) -> None:
        """Waits until every task but the parameter servers has left with 0, then stops those."""
        leaving = [task for task in self.tasks.values() if task.job != SERVERS_FOREVER]
        self.wait_until(lambda: all(task.status == 0 for task in leaving), "the end of all tasks", timeout)
        for task in self._chosen(SERVERS_FOREVER, None):
            self._end(task, signal.SIGTERM)

    def ends(self, timeout: float = 120) -> dict[str, int]:
        """Waits until every task has ended by itself, with whatever status, and returns the statuses by task.

        Raises:
          AssertionError: some still run; with the tail of every log.
        """
        deadline = time.monotonic() + timeout
        while any(task.status is None for task in self.tasks.values()):
            assert time.monotonic() < deadline, f"some tasks have not ended within {timeout:g} s\n{self.report()}"
            time.sleep(0.1)
        return {task.name: task.status or 0 for task in self.tasks.values()}

    def signal(self, sent: signal.Signals, job: str | None = None) -> None:
        """Sends a signal to all running tasks, or those of a job, and waits for nothing."""
        for task in self._chosen(job, None):
            if task.process is not None and task.status is None:
                os.killpg(task.process.pid, sent)

    def text(self, job: str, index: int = 0) -> str:
        """Returns what a task has printed."""
        return self.tasks[job, index].text

    def report(self, lines: int = 25) -> str:
        """Returns the tail of every log."""
        parts = []
        for task in self.tasks.values():
            tail = "\n".join(task.text.splitlines()[-lines:])
            parts.append(f"---- {task.name}, status {task.status}\n{tail}")
        return "\n".join(parts)

    def _chosen(self, job: str | None, index: int | None) -> Iterator[Task]:
        for task in self.tasks.values():
            if job in (None, task.job) and index in (None, task.index):
                yield task

    @staticmethod
    def _end(task: Task, sent: signal.Signals) -> None:
        if task.process is not None and task.status is None:
            os.killpg(task.process.pid, sent)
            try:
                task.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(task.process.pid, signal.SIGKILL)
                task.process.wait()
        if task.output is not None:
            task.output.close()
            task.output = None


def free_ports(count: int) -> list[int]:
    """Returns `count` different loopback ports that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("localhost", 0))
        return [found.getsockname()[1] for found in sockets]


def _die_with_parent() -> None:
    """Asks Linux to end this process with the test process, even where that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
