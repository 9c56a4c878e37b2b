"""The flags that describe a cluster, and the cluster that they or the environment describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator_tl.cli.command import CommandFlags
from estimator_tl.errors import UserError
from estimator_tl.launch.cluster.description import JOBS, Cluster, from_hosts, from_tf_config
from estimator_tl.launch.cluster.slurm import from_slurm, parse_jobs

_CLUSTER = "Cluster (or the environment variable TF_CONFIG)"


def define_cluster(command: CommandFlags) -> None:
    """Adds the flags that describe a cluster."""
    command.many(_CLUSTER, "chief_hosts", [], "host:port of the chief (default: the first of --worker_hosts).")
    command.many(_CLUSTER, "worker_hosts", [], "host:port of each worker.")
    command.many(_CLUSTER, "ps_hosts", [], "host:port of each parameter server.")
    command.choice(_CLUSTER, "job_name", None, list(JOBS), "which job this process is of.")
    command.integer(_CLUSTER, "task_index", None, "its number in the job, from 0.", at_least=0)
    command.string(
        _CLUSTER,
        "slurm_jobs",
        None,
        "tasks of each job in the order of a Slurm step's, e.g. chief:1,worker:2,ps:1,evaluator:1.",
    )
    command.integer(_CLUSTER, "slurm_port_base", 8888, "port of the first task of each Slurm node.", at_most=65535)
    command.exclude(["slurm_jobs"], ["worker_hosts", "ps_hosts", "chief_hosts"])


def cluster_of(values: Any, environ: Mapping[str, str]) -> Cluster | None:
    """Returns the cluster that the flags or the environment describe.

    Args:
      values: parsed flags of `define_cluster`.
      environ: with TF_CONFIG and what srun sets.

    Returns:
      The cluster; None where there is none.

    Raises:
      UserError: the description is wrong, or there are two.
    """
    hosts = [list(filter(None, listed)) for listed in (values.worker_hosts, values.ps_hosts, values.chief_hosts)]
    given = {
        "TF_CONFIG": from_tf_config(environ.get("TF_CONFIG", "")),
        "--worker_hosts": from_hosts(hosts[0], hosts[1], values.job_name, values.task_index, hosts[2]),
        "--slurm_jobs": _slurm(values, environ) if values.slurm_jobs else None,
    }
    found = {source: cluster for source, cluster in given.items() if cluster}
    if len(found) > 1:
        first, second, *_ = found
        raise UserError(f"{first} and {second} both describe a cluster; keep one of them.")
    return next(iter(found.values()), None)


def _slurm(values: Any, environ: Mapping[str, str]) -> Cluster:
    return from_slurm(parse_jobs(values.slurm_jobs), values.slurm_port_base, environ)
