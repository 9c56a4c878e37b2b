"""The cluster of a Slurm step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from estimator_tl.errors import UserError, nearest
from estimator_tl.launch.cluster.description import JOBS, Cluster, index_of, normalized


def parse_jobs(text: str) -> dict[str, int]:
    """Reads how many tasks each job of a Slurm step has, e.g. ``chief:1,worker:2,ps:1,evaluator:1``.

    Raises:
      UserError: the text has another form.
    """
    jobs: dict[str, int] = {}
    for part in text.split(","):
        job, colon, count = part.strip().partition(":")
        if job in jobs or job not in (*JOBS, "master") or (colon and not count.isdigit()):
            remedy = "use each job once" if job in jobs else nearest(job, JOBS)
            raise UserError(f"--slurm_jobs={text}: {part!r} is not a job with its number of tasks; {remedy}")
        jobs[job] = int(count) if colon else 1
    return jobs


def from_slurm(jobs: Mapping[str, int], port_base: int, environment: Mapping[str, str]) -> Cluster:
    """Reads the cluster from the environment variables of a Slurm step; its tasks follow the order of `jobs`.

    Args:
      jobs: the number of tasks of each job, from `parse_jobs`; the sum is the number of tasks of the step.
      port_base: the first port of each node; each further task on a node takes the next port.
      environment: the variables that srun sets.

    Raises:
      UserError: the process is not in a Slurm step, or the step has another number of tasks.
    """
    names = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
    missing = [name for name in names if name not in environment]
    if missing:
        raise UserError(f"--slurm_jobs is given, but {missing[0]} is not set; start the program with srun.")
    from estimator_tl.tf_internals.slurm import hosts_of_tasks

    rank, nodes, tasks = (environment[name] for name in names)
    try:
        hosts = hosts_of_tasks(nodes, tasks)
    except ValueError as error:
        raise UserError(f"Slurm's variables cannot be read: {error}; start the program with srun.") from error
    if len(hosts) != sum(jobs.values()):
        text = ",".join(f"{job}:{count}" for job, count in jobs.items())
        raise UserError(
            f"--slurm_jobs={text} has {sum(jobs.values())} tasks, the Slurm step {len(hosts)}; make them equal."
        )
    tasks_in_order = [(job, index) for job, count in jobs.items() for index in range(count)]
    tasks_on_host: Counter[str] = Counter()
    addresses: dict[str, dict[int, str]] = {job: {} for job in jobs}
    for (job, index), host in zip(tasks_in_order, hosts):
        addresses[job][index] = f"{host}:{port_base + tasks_on_host[host]}"
        tasks_on_host[host] += 1
    return normalized(addresses, *tasks_in_order[index_of(rank, "SLURM_PROCID")], "Slurm")
