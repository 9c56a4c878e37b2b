"""LaunchSpec: where a run computes, and how its process behaves."""

from __future__ import annotations

import dataclasses

from estimator_tl.errors import UserError

DISTRIBUTIONS = ("auto", "off", "mirrored", "multi_worker_mirrored", "parameter_server", "tpu")
PRECISIONS = ("auto", "float32", "tf32", "bfloat16")
ALL_REDUCE = ("auto", "nccl", "ring", "hierarchical_copy", "reduction_to_one")
_COUNTS = ("num_gpus", "inter_op_threads", "intra_op_threads", "keep_checkpoint_every_n_hours", "log_norms")
_POSITIVE = (
    "cpu_replicas",
    "save_checkpoints_secs",
    "session_creation_timeout_secs",
    "cluster_wait_secs",
    "max_run_hours",
    "iterations_per_loop",
    "num_tpu_cores",
    "log_step_count_steps",
)


@dataclasses.dataclass(frozen=True)
class LaunchSpec:
    """How a run is launched; may differ from one call to the next in the same model_dir.

    The fields are the flags of the same names. All tasks of a cluster must be given the same.

    Attributes:
      distribution: one of `DISTRIBUTIONS`.
      num_gpus: of this process; None for all that there are.
      cpu_replicas: of mirrored training where no GPU is used.
      all_reduce_alg: one of `ALL_REDUCE`.
      tpu: ``local`` on a TPU VM, a TPU's name in Google Cloud, or its address; empty for none.
      tpu_zone: of a name; this machine's own by default.
      gcp_project: of a name; this machine's own by default.
      iterations_per_loop: steps that a TPU makes before the process hears of them.
      num_tpu_cores: that the TPU must have; None for any number.
      precision: one of `PRECISIONS`: auto is TensorFlow's own; float32 and tf32 have an effect on GPUs only; bfloat16
        on the CPU only, where TensorFlow uses oneDNN (TF_ENABLE_ONEDNN_OPTS=1 before its import, as the command line
        sets it).
      xla: whether parts of the graph are compiled by XLA.
      inter_op_threads: ops at a time; 0 lets TensorFlow choose.
      intra_op_threads: threads of an op; 0 lets TensorFlow choose.
      gpu_memory_fraction: of each GPU that the process may take.
      gpu_allow_growth: take the memory of GPUs as it is needed.
      session_config: a ConfigProto as text, over all that the other fields say.
      device_filters: what of the cluster the session sees.
      save_checkpoints_secs: seconds between checkpoints, in place of steps.
      keep_checkpoint_every_n_hours: further checkpoints that are never deleted; 0 for none.
      log_step_count_steps: steps between the entries of steps per second.
      session_creation_timeout_secs: how long a worker waits for the chief's variables.
      cluster_wait_secs: how long a task waits for the others before it leaves to be started again.
      stall_minutes: without a finished step, after which a task leaves to be started again; 0 for never.
      max_run_hours: after which a run stops with a checkpoint.
      log_norms: steps between entries of the norms of gradients and updates; 0 for none.
      profile: the first and the last step to profile, e.g. ``100,110``; empty for none.
    """

    distribution: str = "auto"
    num_gpus: int | None = None
    cpu_replicas: int = 1
    all_reduce_alg: str = "auto"
    tpu: str = ""
    tpu_zone: str = ""
    gcp_project: str = ""
    iterations_per_loop: int = 100
    num_tpu_cores: int | None = None
    precision: str = "auto"
    xla: bool = False
    inter_op_threads: int = 0
    intra_op_threads: int = 0
    gpu_memory_fraction: float | None = None
    gpu_allow_growth: bool = False
    session_config: str = ""
    device_filters: tuple[str, ...] = ()
    save_checkpoints_secs: int | None = None
    keep_checkpoint_every_n_hours: int = 0
    log_step_count_steps: int | None = None
    session_creation_timeout_secs: int = 7200
    cluster_wait_secs: int = 600
    stall_minutes: float = 30.0
    max_run_hours: float | None = None
    log_norms: int = 0
    profile: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "device_filters", tuple(self.device_filters))
        for field in _COUNTS:
            value = getattr(self, field)
            if value is not None and value < 0:
                raise UserError(f"{field} {value} must be at least 0.")
        for field in _POSITIVE:
            value = getattr(self, field)
            if value is not None and not value > 0:  # NaN is refused as well
                raise UserError(f"{field} {value:g} must be above 0.")
        if not self.stall_minutes >= 0:
            raise UserError(f"stall_minutes {self.stall_minutes:g} must be at least 0 (0 never leaves).")
        if self.gpu_memory_fraction is not None and not 0 < self.gpu_memory_fraction <= 1:
            raise UserError(f"gpu_memory_fraction {self.gpu_memory_fraction:g} must be above 0 and at most 1.")
