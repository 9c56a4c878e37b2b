"""The cluster that a process belongs to, read from TF_CONFIG, flags or Slurm."""

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
    """The tasks of a cluster, and which of them this process is.

    There is always a chief. `master` is another name for it. If neither is listed, worker 0 is the chief and the other
    workers move up by one, as in TensorFlow. An evaluator only reads checkpoints, so it needs no address.

    Attributes:
      tasks: for each job (chief, worker, ps) a mapping from index to address ``host:port``. Indices may have gaps.
      job: the job of this process: chief, worker, ps or evaluator.
      index: the index of this process in its job.
      source: where the description comes from, for messages.
      evaluator: the address of the evaluator, if one is listed.
      first_worker_leads: whether the description calls the chief worker 0.
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
        """Returns the name that the description gives a task; it may call the chief worker 0."""
        if self.first_worker_leads and job in ("chief", "worker"):
            return f"worker {index + (job == 'worker')}"
        return f"{job} {index}"

    @property
    def is_chief(self) -> bool:
        """True for the task that writes checkpoints."""
        return self.job == "chief"

    @property
    def workers(self) -> int:
        """How many tasks train, with the chief; gaps between indices count as tasks."""
        return 1 + max([index + 1 for index in self.tasks.get("worker", {})], default=0)

    @property
    def servers(self) -> int:
        """How many parameter servers there are."""
        return len(self.tasks.get("ps", {}))

    @property
    def is_distributed(self) -> bool:
        """True if more than one task takes part in training; an evaluator does not count."""
        return self.workers > 1 or self.servers > 0

    @property
    def number(self) -> int:
        """The position of this task among the training tasks; the chief has 0."""
        return 0 if self.is_chief else self.index + 1

    def peers(self) -> Iterator[tuple[str, str]]:
        """Yields the names and addresses of all other tasks that listen."""
        for job, addresses in self.tasks.items():
            for index, address in addresses.items():
                if (job, index) != (self.job, self.index):
                    yield self.name_of(job, index), address

    def address(self) -> str | None:
        """Returns the address where this task listens; None for an evaluator without an address."""
        if self.job == "evaluator":
            return self.evaluator
        return self.tasks[self.job][self.index]

    def tf_config(self) -> str:
        """Returns the description as normalized JSON for the environment variable TF_CONFIG."""
        cluster = {job: _dense(addresses) for job, addresses in self.tasks.items()}
        return json.dumps({"cluster": cluster, "task": {"type": self.job, "index": self.index}})

    def text(self) -> str:
        """Returns one line for each job, for people to read."""
        role = ", the chief" if self.is_chief and self.first_worker_leads else ""
        rows = [("this task", f"{self.name}{role}, from {self.source}")]
        entries: dict[str, list[str]] = {}
        for job, addresses in self.tasks.items():
            for index, address in addresses.items():
                label, _, number = self.name_of(job, index).partition(" ")
                entries.setdefault(label, []).append(f"{number}: {address}" if _gaps(addresses) else address)
        rows += [(label, ", ".join(texts)) for label, texts in entries.items()]
        if self.evaluator or self.job == "evaluator":
            rows.append(("evaluator", self.evaluator or "this task"))
        return "\n".join(f"{name.ljust(14)} {text}" for name, text in rows)


def from_tf_config(text: str, source: str = "TF_CONFIG") -> Cluster | None:
    """Reads the value of TF_CONFIG, which Kubernetes TFJob, AI platforms and TensorFlow itself use.

    Args:
      text: JSON with ``cluster`` and ``task``; other keys, such as ``environment``, are ignored. ``cluster`` (or
        ``sparseCluster`` in a TFJob with dynamic workers) maps jobs to lists of addresses, or to maps from index to
        address.
      source: the name of the description in messages.

    Returns:
      The cluster; None if the text describes no cluster.

    Raises:
      UserError: the text is not JSON, or the cluster is invalid.
    """
    if not text.strip():
        return None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source} is not JSON ({error}); put its names and texts in double quotes.") from error
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
        {job: _addresses(job, value, source) for job, value in cluster.items()}, task["type"], index, source
    )


def from_hosts(
    worker_hosts: Sequence[str],
    ps_hosts: Sequence[str],
    job_name: str | None,
    task_index: int | None,
    chief_hosts: Sequence[str] = (),
) -> Cluster | None:
    """Reads the classic flags of distributed TensorFlow programs.

    Raises:
      UserError: the flags contradict each other.
    """
    if not (worker_hosts or ps_hosts or chief_hosts):
        if job_name or task_index is not None:
            raise UserError(
                "--job_name and --task_index are given without --worker_hosts; name the hosts of the cluster."
            )
        return None
    if not job_name:
        raise UserError("--worker_hosts and --ps_hosts are given without --job_name; say which task this process is.")
    hosts_of_job = {"chief": chief_hosts, "worker": worker_hosts, "ps": ps_hosts}
    tasks = {job: dict(enumerate(hosts)) for job, hosts in hosts_of_job.items() if hosts}
    return normalized(tasks, job_name, task_index or 0, "--worker_hosts")


def normalized(jobs: Mapping[str, Mapping[int, str]], job: str, index: int, source: str) -> Cluster:
    """Returns the cluster, with `master` renamed to chief, or worker 0 made the chief.

    Args:
      jobs: for each job a mapping from index to address.
      job: the job of this task.
      index: the index of this task.
      source: the name of the description in messages.

    Raises:
      UserError: the cluster is invalid.
    """
    for name in (*jobs, job):
        if name not in (*JOBS, "master"):
            raise UserError(f"{source}: unknown job {name!r}; {nearest(name, (*JOBS, 'master'))}")
    tasks = {name: dict(addresses) for name, addresses in jobs.items() if addresses}
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
    ordered = {name: dict(sorted(tasks[name].items())) for name in JOBS if name in tasks}
    return Cluster(ordered, job, index, source, evaluators.get(0), first_worker_leads)


def _first_worker_leads(
    tasks: Mapping[str, Mapping[int, str]], job: str, index: int, source: str
) -> tuple[dict[str, dict[int, str]], str, int]:
    workers = tasks.get("worker", {})
    if 0 not in workers:
        raise UserError(f"{source} lists neither a chief nor worker 0, so no task would save checkpoints; add a chief.")
    renumbered = {name: dict(addresses) for name, addresses in tasks.items() if name != "worker"}
    renumbered["chief"] = {0: workers[0]}
    if len(workers) > 1:
        renumbered["worker"] = {number - 1: address for number, address in workers.items() if number}
    if job == "worker":
        return renumbered, "worker" if index else "chief", max(index - 1, 0)
    return renumbered, job, index


def _check(cluster: Cluster) -> None:
    source = cluster.source
    if len(cluster.tasks.get("chief", {})) != 1 or 0 not in cluster.tasks["chief"]:
        raise UserError(
            f"{source} lists {len(cluster.tasks.get('chief', {}))} chiefs; there must be one, with index 0."
        )
    for job, addresses in cluster.tasks.items():
        for index, address in addresses.items():
            match = _ADDRESS.fullmatch(address)
            if not match or not 0 < int(match.group(2)) < 65536:
                raise UserError(
                    f"{source}: the address {address!r} of {job} {index} is not host:port; e.g. worker0:2222."
                )
    all_addresses = [address for addresses in cluster.tasks.values() for address in addresses.values()]
    duplicates = [address for address, count in Counter(all_addresses).items() if count > 1]
    if duplicates:
        raise UserError(f"{source} gives two tasks the address {duplicates[0]}; give each its own port.")
    if cluster.job != "evaluator" and cluster.index not in cluster.tasks.get(cluster.job, {}):
        indices = ", ".join(map(str, cluster.tasks.get(cluster.job, {})))
        tasks = f"has the tasks {indices}" if indices else "is not in the cluster"
        raise UserError(
            f"{source}: this process is {cluster.name}, but the job {tasks}; correct the task's type or index, which "
            "counts from 0."
        )


def _addresses(job: str, value: Any, source: str) -> dict[int, str]:
    if isinstance(value, Mapping):
        return {index_of(index, f"{source}: an index of {job}"): str(address) for index, address in value.items()}
    if isinstance(value, (list, tuple)):
        return {index: str(address) for index, address in enumerate(value)}
    raise UserError(f"{source}: {job} is {value!r}; give a list of addresses or a map from index to address.")


def index_of(value: Any, name: str) -> int:
    """Returns an index that a description gives as a number or as text.

    Args:
      value: the number or text.
      name: the name of the value in messages.

    Raises:
      UserError: the value is not a whole number from 0.
    """
    text = str(value)
    if not text.isdigit():
        raise UserError(f"{name} is {value!r}; give a whole number from 0.")
    return int(text)


def _gaps(addresses: Mapping[int, str]) -> bool:
    return list(addresses) != list(range(len(addresses)))


def _dense(addresses: Mapping[int, str]) -> list[str] | dict[str, str]:
    if _gaps(addresses):
        return {str(index): address for index, address in addresses.items()}
    return list(addresses.values())
