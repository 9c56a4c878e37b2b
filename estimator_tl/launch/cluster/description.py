"""The cluster that a process belongs to, from whatever describes it, as one value."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from estimator_tl.errors import UserError, nearest

JOBS = ("chief", "worker", "ps", "evaluator")
_ADDRESS = re.compile(r"(?:[a-z]+://)?(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The tasks of a cluster and the one that this process is.

    There is always a chief: `master` is another name for it, and where neither is listed the first worker is the chief
    and the others move up, as TensorFlow has it. An evaluator only reads checkpoints, so it needs no address.

    Attributes:
      tasks: addresses ``host:port`` by index by job: chief, worker, ps. Indices may have gaps.
      job: of this process: chief, worker, ps or evaluator.
      index: its number in the job.
      source: where the description comes from, for messages.
      evaluator: the address of the evaluator, where one is listed.
      first_worker_leads: whether the chief is what the description calls worker 0.
    """

    tasks: Mapping[str, Mapping[int, str]]
    job: str
    index: int
    source: str
    evaluator: str | None = None
    first_worker_leads: bool = False

    def __post_init__(self) -> None:
        _check(self)

    @property
    def name(self) -> str:
        """This task as the description calls it, e.g. "worker 0"."""
        return self.name_of(self.job, self.index)

    def name_of(self, job: str, index: int) -> str:
        """Returns what the description calls a task: the chief may be its first worker."""
        if self.first_worker_leads and job in ("chief", "worker"):
            return f"worker {index + (job == 'worker')}"
        return f"{job} {index}"

    @property
    def is_chief(self) -> bool:
        """True for the task that writes checkpoints."""
        return self.job == "chief"

    @property
    def workers(self) -> int:
        """How many tasks train, the chief among them; with gaps, as many as the highest index says."""
        return 1 + max([index + 1 for index in self.tasks.get("worker", {})], default=0)

    @property
    def servers(self) -> int:
        """How many parameter servers there are."""
        return len(self.tasks.get("ps", {}))

    @property
    def is_distributed(self) -> bool:
        """True where more than one task takes part in training; an evaluator does not."""
        return self.workers > 1 or self.servers > 0

    @property
    def number(self) -> int:
        """The place of this task among those that train, from 0, the chief's."""
        return 0 if self.is_chief else self.index + 1

    def peers(self) -> Iterator[tuple[str, str]]:
        """Yields the names and addresses of all other tasks that listen."""
        for job, addresses in self.tasks.items():
            for index, address in addresses.items():
                if (job, index) != (self.job, self.index):
                    yield self.name_of(job, index), address

    def address(self) -> str | None:
        """Returns where this task listens; None for an evaluator without an address."""
        return self.evaluator if self.job == "evaluator" else self.tasks[self.job][self.index]

    def tf_config(self) -> str:
        """Returns the description in the form of the environment variable TF_CONFIG, normalized."""
        cluster = {job: _dense(addresses) for job, addresses in self.tasks.items()}
        return json.dumps({"cluster": cluster, "task": {"type": self.job, "index": self.index}})

    def text(self) -> str:
        """Returns one line a job, for people."""
        role = ", the chief" if self.is_chief and self.first_worker_leads else ""
        rows = [("this task", f"{self.name}{role}, from {self.source}")]
        shown: dict[str, list[str]] = {}
        for job, addresses in self.tasks.items():
            for index, address in addresses.items():
                known, _, number = self.name_of(job, index).partition(" ")
                shown.setdefault(known, []).append(f"{number}: {address}" if _gaps(addresses) else address)
        rows += [(job, ", ".join(listed)) for job, listed in shown.items()]
        if self.evaluator or self.job == "evaluator":
            rows.append(("evaluator", self.evaluator or "this task"))
        return "\n".join(f"{name.ljust(14)} {what}" for name, what in rows)


def from_tf_config(text: str, source: str = "TF_CONFIG") -> Cluster | None:
    """Reads the environment variable that Kubernetes TFJob, AI platforms and TensorFlow itself use.

    Args:
      text: JSON with ``cluster``, of lists or of maps from index to address (``sparseCluster`` in a TFJob with dynamic
        workers), and ``task``; other keys, such as ``environment``, are ignored.
      source: for messages.

    Returns:
      The cluster; None where none is described.

    Raises:
      UserError: it is not JSON, or describes no possible cluster.
    """
    if not text.strip():
        return None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source} is not JSON ({error}); quote its names and texts with double quotes.") from error
    if not isinstance(values, Mapping):
        raise UserError(f'{source} is {values!r}; give {{"cluster": {{...}}, "task": {{...}}}}.')
    cluster = values.get("cluster") or values.get("sparseCluster")
    if not cluster:
        return None
    if not isinstance(cluster, Mapping):
        raise UserError(f'{source}: cluster is {cluster!r}; give e.g. {{"worker": ["host:2222"]}}.')
    task = values.get("task")
    if not isinstance(task, Mapping) or "type" not in task:
        raise UserError(f'{source} does not say which task this is; add "task": {{"type": "worker", "index": 0}}.')
    index = index_of(task.get("index", 0), f"{source}: the task index")
    return normalized(
        {job: _addresses(job, given, source) for job, given in cluster.items()}, task["type"], index, source
    )


def from_hosts(
    worker_hosts: Sequence[str],
    ps_hosts: Sequence[str],
    job_name: str | None,
    task_index: int | None,
    chief_hosts: Sequence[str] = (),
) -> Cluster | None:
    """Reads the classic flags of TensorFlow's distributed programs.

    Raises:
      UserError: they contradict each other.
    """
    if not (worker_hosts or ps_hosts or chief_hosts):
        if job_name or task_index is not None:
            raise UserError(
                "--job_name and --task_index are given without --worker_hosts; name the hosts of the cluster."
            )
        return None
    if not job_name:
        raise UserError("--worker_hosts and --ps_hosts are given without --job_name; say which task this process is.")
    listed = {"chief": chief_hosts, "worker": worker_hosts, "ps": ps_hosts}
    tasks = {job: dict(enumerate(hosts)) for job, hosts in listed.items() if hosts}
    return normalized(tasks, job_name, task_index or 0, "--worker_hosts")


def normalized(given: Mapping[str, Mapping[int, str]], job: str, index: int, source: str) -> Cluster:
    """Returns the cluster of addresses by index by job, with this task.

    Raises:
      UserError: there is no such cluster.
    """
    for unknown in (*given, job):
        if unknown not in (*JOBS, "master"):
            raise UserError(f"{source}: unknown job {unknown!r}; {nearest(unknown, (*JOBS, 'master'))}")
    tasks = {known: dict(addresses) for known, addresses in given.items() if addresses}
    if "chief" in tasks and "master" in tasks:
        raise UserError(f"{source} lists a chief and a master, which are the same; keep one of them.")
    if "master" in tasks:
        tasks["chief"] = tasks.pop("master")
    job = "chief" if job == "master" else job
    evaluators = tasks.pop("evaluator", {})
    if len(evaluators) > 1 or (job == "evaluator" and index > 0):
        raise UserError(f"{source} has more than one evaluator; keep one, which evaluates every checkpoint.")
    first_worker_leads = "chief" not in tasks
    if first_worker_leads:
        tasks, job, index = _first_worker_leads(tasks, job, index, source)
    ordered = {known: dict(sorted(tasks[known].items())) for known in JOBS if known in tasks}
    return Cluster(ordered, job, index, source, evaluators.get(0), first_worker_leads)


def _first_worker_leads(
    tasks: Mapping[str, Mapping[int, str]], job: str, index: int, source: str
) -> tuple[dict[str, dict[int, str]], str, int]:
    workers = tasks.get("worker", {})
    if 0 not in workers:
        raise UserError(f"{source} lists neither a chief nor worker 0, so nobody would save; add a chief.")
    moved = {known: dict(addresses) for known, addresses in tasks.items() if known != "worker"}
    moved["chief"] = {0: workers[0]}
    if len(workers) > 1:
        moved["worker"] = {number - 1: address for number, address in workers.items() if number}
    if job != "worker":
        return moved, job, index
    return moved, "worker" if index else "chief", max(index - 1, 0)


def _check(cluster: Cluster) -> None:
    source = cluster.source
    if len(cluster.tasks.get("chief", {})) != 1 or 0 not in cluster.tasks["chief"]:
        raise UserError(f"{source} lists {len(cluster.tasks.get('chief', {}))} chiefs; there must be one, of index 0.")
    for job, addresses in cluster.tasks.items():
        for index, address in addresses.items():
            found = _ADDRESS.fullmatch(address)
            if not found or not 0 < int(found.group(2)) < 65536:
                raise UserError(
                    f"{source}: the address {address!r} of {job} {index} is not host:port; e.g. worker0:2222."
                )
    all_addresses = [address for addresses in cluster.tasks.values() for address in addresses.values()]
    twice = [address for address, count in Counter(all_addresses).items() if count > 1]
    if twice:
        raise UserError(f"{source} gives two tasks the address {twice[0]}; each needs a port of its own.")
    if cluster.job != "evaluator" and cluster.index not in cluster.tasks.get(cluster.job, {}):
        listed = cluster.tasks.get(cluster.job, {})
        there = f"has the tasks {', '.join(map(str, listed))}" if listed else "is not in the cluster"
        raise UserError(
            f"{source}: this process is {cluster.name}, but the job {there}; correct the task's type or index, which "
            "counts from 0."
        )


def _addresses(job: str, given: Any, source: str) -> dict[int, str]:
    if isinstance(given, Mapping):
        return {index_of(index, f"{source}: an index of {job}"): str(address) for index, address in given.items()}
    if isinstance(given, (list, tuple)):
        return {index: str(address) for index, address in enumerate(given)}
    raise UserError(f"{source}: {job} is {given!r}; give a list of addresses or a map from index to address.")


def index_of(value: Any, what: str) -> int:
    """Returns a number from 0 that a description gives as one or as text. Args: what: it is, for the message."""
    text = str(value)
    if not text.isdigit():
        raise UserError(f"{what} is {value!r}; give a whole number from 0.")
    return int(text)


def _gaps(addresses: Mapping[int, str]) -> bool:
    return list(addresses) != list(range(len(addresses)))


def _dense(addresses: Mapping[int, str]) -> list[str] | dict[str, str]:
    if _gaps(addresses):
        return {str(index): address for index, address in addresses.items()}
    return list(addresses.values())
