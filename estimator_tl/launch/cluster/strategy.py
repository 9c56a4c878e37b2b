"""Chooses the distribution strategy of a run, and checks that its devices exist."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.config import LaunchSpec
from estimator_tl.config.launch_spec import DISTRIBUTIONS
from estimator_tl.errors import UserError, check_known
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.tf_internals import tpu

_NOT_ON_TPU = {
    "precision": "a TPU always multiplies in bfloat16; leave it out",
    "log_norms": "the steps of a TPU cannot be inspected; leave it out",
    "profile": "a TPU is profiled from TensorBoard's profile page; leave it out",
    "cpu_replicas": "training is on a TPU; leave it out",
    "num_gpus": "training is on a TPU; leave it out",
    "all_reduce_alg": "the cores of a TPU have their own algorithm; leave it out",
}


@dataclasses.dataclass(frozen=True)
class Distribution:
    """How training is distributed.

    Attributes:
      kind: off, mirrored, multi_worker_mirrored, parameter_server or tpu.
      devices: the devices of this process that compute, e.g. ``/gpu:0``; empty if TensorFlow places the ops.
      replicas: parts into which a batch is divided; 1 on parameter servers, where each step belongs to one worker.
      steps_per_call: steps that one session call makes.
      resolver: the TPUClusterResolver of a TPU.
      all_reduce: how replicas sum gradients, as the strategy takes it; None for the strategy's default.
    """

    kind: str
    devices: tuple[str, ...] = ()
    replicas: int = 1
    steps_per_call: int = 1
    resolver: Any = None
    all_reduce: Any = dataclasses.field(default=None, compare=False)

    @property
    def in_one_process(self) -> bool:
        """Whether one process trains on its own devices."""
        return self.kind in ("off", "mirrored")

    @property
    def over_tasks(self) -> bool:
        """Whether the tasks of a cluster train."""
        return self.kind in ("parameter_server", "multi_worker_mirrored")

    @property
    def synchronous(self) -> bool:
        """Whether the tasks of a cluster make each step together."""
        return self.kind == "multi_worker_mirrored"

    @property
    def mirrored(self) -> bool:
        """Whether one process trains on several replicas."""
        return self.kind == "mirrored"

    @property
    def has_servers(self) -> bool:
        """Whether parameter servers hold the variables."""
        return self.kind == "parameter_server"

    @property
    def on_tpu(self) -> bool:
        """Whether a TPU trains."""
        return self.kind == "tpu"

    @property
    def owns_saving(self) -> bool:
        """Whether only this project's hook may save, so that Estimator's own saver must be off."""
        return self.synchronous or self.on_tpu

    @property
    def saves_at_any_step(self) -> bool:
        """Whether checkpoints may come at other steps than multiples of save_checkpoints_steps.

        A TPU makes several steps in each call. On parameter servers all workers advance the global step, and the chief
        sees it only after its own steps.
        """
        return self.has_servers or self.on_tpu

    def batch_of_replica(self, batch_size: int) -> int:
        """Returns the batch size that the input_fn of each replica must give. Args: batch_size: of all replicas.

        Raises:
          UserError: the batch size is not divisible by the number of replicas.
        """
        if batch_size % self.replicas:
            divisible = max(batch_size // self.replicas, 1) * self.replicas
            raise UserError(
                f"batch_size {batch_size} is of all replicas together and cannot be divided among {self.replicas}; "
                f"use e.g. --batch_size={divisible}."
            )
        return batch_size // self.replicas


def distribution_of(launch: LaunchSpec, cluster: Cluster | None) -> Distribution:
    """Decides how a run is distributed.

    Raises:
      UserError: the settings do not fit the cluster or the devices.
      LostPeersError: a TPU does not answer.
    """
    kind = check_known("distribution", launch.distribution, DISTRIBUTIONS)
    if kind == "tpu" or (kind == "auto" and launch.tpu):
        return _on_tpu(launch, cluster)
    for name in ("tpu", "tpu_zone", "gcp_project", "num_tpu_cores"):
        if getattr(launch, name):
            raise UserError(
                f"{name} is given, but distribution is {kind}; use --distribution=tpu, or leave {name} out."
            )
    gpus = _gpus(launch)
    local = tuple(f"/gpu:{index}" for index in range(gpus)) or tuple(f"/cpu:{i}" for i in range(launch.cpu_replicas))
    if gpus and launch.cpu_replicas > 1:
        raise UserError(f"cpu_replicas {launch.cpu_replicas} is for runs without GPU; give num_gpus=0 as well.")
    distributed = cluster is not None and cluster.is_distributed
    if kind == "auto":
        kind = _default_kind(cluster if distributed else None, len(local))
    if kind in ("off", "mirrored"):
        if cluster and distributed:
            raise UserError(
                f"distribution {kind} is for one process, but {cluster.source} describes a cluster of "
                f"{cluster.workers} workers; use multi_worker_mirrored or parameter_server, or unset the cluster."
            )
        if kind == "off" or len(local) == 1:
            return Distribution("off")
        return Distribution(kind, local, len(local), all_reduce=_cross_device_ops(launch.all_reduce_alg))
    return _over_cluster(kind, launch, cluster, local)


def _over_cluster(kind: str, launch: LaunchSpec, cluster: Cluster | None, local: tuple[str, ...]) -> Distribution:
    """Returns the distribution over the tasks of a cluster. Args: local: the devices of this process."""
    _check_cluster(kind, cluster)
    assert cluster is not None
    if launch.cpu_replicas > 1:
        raise UserError(
            f"cpu_replicas {launch.cpu_replicas} is for one process; under {kind} each worker is one replica, so start "
            "more workers."
        )
    if kind == "parameter_server":
        return Distribution(kind)
    if launch.save_checkpoints_secs:
        raise UserError(
            "save_checkpoints_secs: under multi_worker_mirrored all tasks save together, at a step, as their clocks "
            "differ; use save_checkpoints_steps."
        )
    if launch.num_gpus is not None and launch.num_gpus != len(tf.config.list_physical_devices("GPU")):
        raise UserError(
            f"num_gpus {launch.num_gpus}: under multi_worker_mirrored TensorFlow takes all GPUs that it sees; leave "
            "num_gpus out, and set the environment variable CUDA_VISIBLE_DEVICES."
        )
    all_reduce = _communication(launch.all_reduce_alg)
    return Distribution(kind, local, cluster.workers * len(local), all_reduce=all_reduce)


def _on_tpu(launch: LaunchSpec, cluster: Cluster | None) -> Distribution:
    """Finds the TPU; refuses settings that a TPU does not support before it waits for the TPU.

    Raises:
      UserError: the settings do not fit a TPU.
      LostPeersError: the TPU does not answer.
    """
    if cluster is not None:
        raise UserError(f"a TPU is used by one process, but {cluster.source} describes a cluster; unset one of them.")
    defaults = LaunchSpec()
    for name, reason in _NOT_ON_TPU.items():
        if getattr(launch, name) and getattr(launch, name) != getattr(defaults, name):
            raise UserError(f"{name} {getattr(launch, name)}, but {reason}.")
    resolver = tpu.resolve(launch.tpu or os.environ.get("TPU_NAME") or "local", launch.tpu_zone, launch.gcp_project)
    cores = tpu.core_count(resolver, launch.cluster_wait_secs)
    if launch.num_tpu_cores not in (None, cores):
        raise UserError(f"num_tpu_cores {launch.num_tpu_cores}, but the TPU has {cores}; correct it, or leave it out.")
    return Distribution("tpu", replicas=cores, steps_per_call=launch.iterations_per_loop, resolver=resolver)


def _default_kind(cluster: Cluster | None, devices: int) -> str:
    """Returns the kind for distribution=auto. Args: cluster: None to train in one process. devices: that compute."""
    if cluster:
        return "parameter_server" if cluster.servers else "multi_worker_mirrored"
    return "mirrored" if devices > 1 else "off"


def _check_cluster(kind: str, cluster: Cluster | None) -> None:
    if cluster is None:
        raise UserError(
            f"distribution {kind} needs a cluster; set TF_CONFIG or --worker_hosts, or start the tasks with "
            "scripts/local_cluster."
        )
    if kind == "parameter_server" and not cluster.servers:
        raise UserError(f"distribution parameter_server, but {cluster.source} lists no ps; add one, or use auto.")
    if kind == "multi_worker_mirrored" and cluster.servers:
        raise UserError(
            f"distribution multi_worker_mirrored has no parameter servers, but {cluster.source} lists "
            f"{cluster.servers}; use parameter_server, or leave the ps tasks out."
        )


def _gpus(launch: LaunchSpec) -> int:
    if launch.num_gpus == 0:
        return 0
    visible = len(tf.config.list_physical_devices("GPU"))
    if launch.num_gpus is None:
        return visible
    if launch.num_gpus > visible:
        raise UserError(
            f"num_gpus {launch.num_gpus}, but TensorFlow sees {visible} GPUs on this machine; use fewer, or check "
            "`estimator-tl doctor`."
        )
    return launch.num_gpus


def make_strategy(distribution: Distribution) -> Any:
    """Returns the `tf.distribute` strategy of a distribution; None if Estimator needs no strategy."""
    if distribution.mirrored:
        return tf.distribute.MirroredStrategy(list(distribution.devices), distribution.all_reduce)
    if distribution.synchronous:
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=distribution.all_reduce)
    return None


def _cross_device_ops(name: str) -> Any:
    makers = {
        "nccl": tf.distribute.NcclAllReduce,
        "hierarchical_copy": tf.distribute.HierarchicalCopyAllReduce,
        "reduction_to_one": tf.distribute.ReductionToOneDevice,
    }
    if name == "auto":
        return None
    return makers[check_known("all_reduce_alg of mirrored", name, makers)]()


def _communication(name: str) -> Any:
    kinds = tf.distribute.experimental.CommunicationImplementation
    by_name = {"auto": kinds.AUTO, "ring": kinds.RING, "nccl": kinds.NCCL}
    kind = by_name[check_known("all_reduce_alg of multi_worker_mirrored", name, by_name)]
    return tf.distribute.experimental.CommunicationOptions(implementation=kind)
