"""Reads Slurm's notation for nodes and tasks, with TensorFlow's parsers."""

from __future__ import annotations


def hosts_of_tasks(nodelist: str, tasks_per_node: str) -> list[str]:
    """Returns the host of each task of a Slurm step, in the order of ranks.

    This uses only the parsers of TensorFlow's SlurmClusterResolver. The resolver itself sorts hosts as text, n10 before
    n2, and counts tasks by GPUs, although a node may have no GPU.

    Args:
      nodelist: SLURM_STEP_NODELIST, e.g. ``n[1-2]``.
      tasks_per_node: SLURM_STEP_TASKS_PER_NODE, e.g. ``2(x2)``.

    Raises:
      ValueError: an argument is not in Slurm's notation.
    """
    from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver as slurm

    counts = slurm.expand_tasks_per_node(tasks_per_node)
    return [host for host, count in zip(slurm.expand_hostlist(nodelist), counts) for _ in range(count)]
