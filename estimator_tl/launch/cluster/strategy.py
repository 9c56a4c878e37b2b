"""Which distribution strategy a run has, and whether its devices are there."""

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
    "precision": "a TPU multiplies in bfloat16 by itself; leave it out",
    "log_norms": "a TPU lets nobody look into its steps; leave it out",
    "profile": "a TPU is profiled from TensorBoard's profile page; leave it out",
    "cpu_replicas": "training is on a TPU; leave it out",
    "num_gpus": "training is on a TPU; leave it out",
    "all_reduce_alg": "a TPU's cores have their own; leave it out",
}


@dataclasses.dataclass(frozen=True)
class Distribution:
    """How training is distributed.

    Attributes:
      kind: off, mirrored, multi_worker_mirrored, parameter_server or tpu.
      devices: of this process that compute, e.g. ``/gpu:0``; empty where TensorFlow places ops by itself.
      replicas: parts into which a batch is divided; 1 on parameter servers, where each step is one worker's.
      loop: steps that one session call makes.
      resolver: the TPUClusterResolver of a TPU.
      all_reduce: how replicas sum gradients, as the strategy takes it; None for its default.
    """

    kind: str
    devices: tuple[str, ...] = ()
    replicas: int = 1
    loop: int = 1
    resolver: Any = None
    all_reduce: Any = dataclasses.field(default=None, compare=False)

    @property
    def is_of_one_process(self) -> bool:
        """Whether one process trains on its own devices."""
        return self.kind in ("off", "mirrored")

    @property
    def is_of_tasks(self) -> bool:
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
        """Whether Estimator must not save by itself, beside this project's hook."""
        return self.synchronous or self.on_tpu

    @property
    def saves_anywhere(self) -> bool:
        """Whether checkpoints are of other steps than the multiples asked for.

        A TPU makes steps in lots; parameter servers have those of all workers, of which the chief sees its own.
        """
        return self.has_servers or self.on_tpu

    def batch_of_replica(self, batch_size: int) -> int:
        """Returns what an input_fn has to give for a global batch size.

        Raises:
          UserError: it cannot be divided.
        """
        if batch_size % self.replicas:
            near = max(batch_size // self.replicas, 1) * self.replicas
            raise UserError(
                f"batch_size {batch_size} is of all replicas together and cannot be divided among {self.replicas}; "
                f"use e.g. --batch_size={near}."
            )
        return batch_size // self.replicas


def distribution_of(launch: LaunchSpec, cluster: Cluster | None) -> Distribution:
    """Decides how a run is distributed.

    Raises:
      UserError: what is asked for does not fit the cluster or the devices that there are.
      LostPeersError: a TPU does not answer.
    """
    kind = check_known("distribution", launch.distribution, DISTRIBUTIONS)
    if kind == "tpu" or (kind == "auto" and launch.tpu):
        return _on_tpu(launch, cluster)
    for name in ("tpu", "tpu_zone", "gcp_project", "num_tpu_cores"):
        if getattr(launch, name):
            raise UserError(f"{name} is given, but distribution is {kind}; use --distribution=tpu, or leave it out.")
    gpus = _gpus(launch)
    local = tuple(f"/gpu:{index}" for index in range(gpus)) or tuple(f"/cpu:{i}" for i in range(launch.cpu_replicas))
    if gpus and launch.cpu_replicas > 1:
        raise UserError(f"cpu_replicas {launch.cpu_replicas} is for runs without GPU; give num_gpus=0 as well.")
    distributed = cluster is not None and cluster.is_distributed
    if kind == "auto":
        kind = _of_cluster(cluster) if cluster and distributed else "mirrored" if len(local) > 1 else "off"
    if kind in ("off", "mirrored"):
        if cluster and distributed:
            raise UserError(
                f"distribution {kind} is of one process, but {cluster.source} describes a cluster of {cluster.workers} "
                "workers; use multi_worker_mirrored or parameter_server, or unset the cluster."
            )
        if kind == "off" or len(local) == 1:
            return Distribution("off")
        return Distribution(kind, local, len(local), all_reduce=_cross_device_ops(launch.all_reduce_alg))
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
    """Finds the TPU, and refuses what does not go there before anything is waited for."""
    if cluster is not None:
        raise UserError(f"a TPU is used by one process, but {cluster.source} describes a cluster; unset one of them.")
    usual = LaunchSpec()
    for name, why in _NOT_ON_TPU.items():
        if getattr(launch, name) and getattr(launch, name) != getattr(usual, name):
            raise UserError(f"{name} {getattr(launch, name)}, but {why}.")
    resolver = tpu.resolve(launch.tpu or os.environ.get("TPU_NAME") or "local", launch.tpu_zone, launch.gcp_project)
    cores = tpu.core_count(resolver, launch.cluster_wait_secs)
    if launch.num_tpu_cores not in (None, cores):
        raise UserError(f"num_tpu_cores {launch.num_tpu_cores}, but the TPU has {cores}; correct it, or leave it out.")
    return Distribution("tpu", replicas=cores, loop=launch.iterations_per_loop, resolver=resolver)


def _of_cluster(cluster: Cluster) -> str:
    return "parameter_server" if cluster.servers else "multi_worker_mirrored"


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
    there = len(tf.config.list_physical_devices("GPU"))
    if launch.num_gpus is not None and launch.num_gpus > there:
        raise UserError(
            f"num_gpus {launch.num_gpus}, but this machine shows TensorFlow {there} GPUs; ask for fewer, or see "
            "`estimator-tl doctor`."
        )
    return there if launch.num_gpus is None else launch.num_gpus


def make_strategy(distribution: Distribution) -> Any:
    """Returns the `tf.distribute` strategy of a distribution; None where Estimator needs none."""
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
    known = {"auto": kinds.AUTO, "ring": kinds.RING, "nccl": kinds.NCCL}
    chosen = known[check_known("all_reduce_alg of multi_worker_mirrored", name, known)]
    return tf.distribute.experimental.CommunicationOptions(implementation=chosen)
