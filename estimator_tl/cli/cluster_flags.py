"""The flags that describe a cluster, and the cluster from these flags or the environment."""

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
    command.many(_CLUSTER, "chief_hosts", [], "host:port of the chief. The default is the first of --worker_hosts.")
    command.many(_CLUSTER, "worker_hosts", [], "host:port of each worker.")
    command.many(_CLUSTER, "ps_hosts", [], "host:port of each parameter server.")
    command.choice(_CLUSTER, "job_name", None, list(JOBS), "Job of this process.")
    command.integer(_CLUSTER, "task_index", None, "Index of this process in its job, from 0.", at_least=0)
    command.string(
        _CLUSTER,
        "slurm_jobs",
        None,
        "Tasks of each job, in the order of the Slurm step, e.g. chief:1,worker:2,ps:1,evaluator:1.",
    )
    command.integer(_CLUSTER, "slurm_port_base", 8888, "Port of the first task on each Slurm node.", at_most=65535)
    command.exclude(["slurm_jobs"], ["worker_hosts", "ps_hosts", "chief_hosts"])


def cluster_of(values: Any, environ: Mapping[str, str]) -> Cluster | None:
    """Returns the cluster that the flags or the environment describe.

    Args:
      values: the parsed flags of `define_cluster`.
      environ: the environment, with TF_CONFIG and the variables of srun.

    Returns:
      The cluster; None if nothing describes one.

    Raises:
      UserError: the description is invalid, or two descriptions are given.
    """
    hosts = [list(filter(None, flag)) for flag in (values.worker_hosts, values.ps_hosts, values.chief_hosts)]
    descriptions = {
        "TF_CONFIG": from_tf_config(environ.get("TF_CONFIG", "")),
        "--worker_hosts": from_hosts(hosts[0], hosts[1], values.job_name, values.task_index, hosts[2]),
        "--slurm_jobs": _slurm(values, environ),
    }
    clusters = {source: cluster for source, cluster in descriptions.items() if cluster}
    if len(clusters) > 1:
        first, second, *_ = clusters
        raise UserError(f"{first} and {second} both describe a cluster; keep one of them.")
    return next(iter(clusters.values()), None)


def _slurm(values: Any, environ: Mapping[str, str]) -> Cluster | None:
    if not values.slurm_jobs:
        return None
    return from_slurm(parse_jobs(values.slurm_jobs), values.slurm_port_base, environ)
