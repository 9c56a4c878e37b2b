"""LaunchSpec: the devices, sessions, time limits and logs of a run, with a class for each subject."""

from __future__ import annotations

import dataclasses

from estimator_tl.config.setting import MOST_STEPS, MOST_TIME, check_settings, setting

DISTRIBUTIONS = ("auto", "off", "mirrored", "multi_worker_mirrored", "parameter_server", "tpu")
PRECISIONS = ("auto", "float32", "tf32", "bfloat16")
ALL_REDUCE = ("auto", "nccl", "ring", "hierarchical_copy", "reduction_to_one")
_DEVICES, _SESSION, _WAITING, _WATCHING = "Distribution", "Session", "Waiting in a cluster", "Checkpoints and summaries"


@dataclasses.dataclass(frozen=True)
class DeviceSpec:
    """Which devices train, and how they share the work."""

    distribution: str = setting(
        "auto",
        "How training is distributed. auto follows the cluster; one process with several GPUs is mirrored.",
        _DEVICES,
        choices=DISTRIBUTIONS,
        common=True,
    )
    num_gpus: int | None = setting(
        None, "GPUs of this process. The default is all; 0 is none.", _DEVICES, common=True, at_least=0
    )
    cpu_replicas: int = setting(
        1, "Replicas of mirrored training on the CPU, to try it without GPUs.", _DEVICES, at_most=1024
    )
    all_reduce_alg: str = setting("auto", "How replicas sum their gradients.", _DEVICES, choices=ALL_REDUCE)
    tpu: str = setting("", "A TPU: local on a TPU VM, a name in Google Cloud, or grpc://HOST:PORT.", _DEVICES)
    tpu_zone: str = setting("", "The zone of the TPU. The default is the zone of this machine.", _DEVICES)
    gcp_project: str = setting("", "The project of the TPU. The default is the project of this machine.", _DEVICES)
    iterations_per_loop: int = setting(100, "Steps that a TPU makes between checkpoints, logs and signals.", _DEVICES)
    num_tpu_cores: int | None = setting(None, "Cores that the TPU must have. The default is any number.", _DEVICES)


@dataclasses.dataclass(frozen=True)
class SessionSpec:
    """How a session computes."""

    precision: str = setting(
        "auto",
        "Precision of large products; variables stay float32. float32 and tf32 affect GPUs, bfloat16 the CPU.",
        _SESSION,
        choices=PRECISIONS,
    )
    xla: bool = setting(False, "Let XLA compile parts of the graph.", _SESSION)
    inter_op_threads: int = setting(
        0, "Ops that run at a time. 0 leaves it to TensorFlow.", _SESSION, at_least=0, at_most=4096
    )
    intra_op_threads: int = setting(
        0, "Threads of one op. 0 leaves it to TensorFlow.", _SESSION, at_least=0, at_most=4096
    )
    gpu_memory_fraction: float | None = setting(
        None, "Share of the memory of each GPU to take. The default is all.", _SESSION, above=0, at_most=1
    )
    gpu_allow_growth: bool = setting(False, "Take GPU memory as it is needed.", _SESSION)
    session_config: str = setting(
        "", "A ConfigProto in text form, or a file with one. It wins over the other flags.", _SESSION
    )
    device_filters: tuple[str, ...] = setting(
        (), "The part of the cluster that the session sees, e.g. /job:ps,/job:worker/task:1.", _SESSION
    )


@dataclasses.dataclass(frozen=True)
class WaitingSpec:
    """How long the tasks of a cluster wait for one another."""

    cluster_wait_secs: int = setting(
        600, "Seconds that a task waits for the others before it leaves with exit code 138.", _WAITING
    )
    session_creation_timeout_secs: int = setting(
        7200, "Seconds that a worker waits for the variables of the chief.", _WAITING
    )


@dataclasses.dataclass(frozen=True)
class WatchingSpec:
    """What a process saves, logs and watches while it trains."""

    save_checkpoints_secs: int | None = setting(
        None, "Seconds between checkpoints, instead of steps.", _WATCHING, instead_of=("save_checkpoints_steps",)
    )
    keep_checkpoint_every_n_hours: int = setting(
        0, "Keep one checkpoint every N hours for good. 0 keeps none.", _WATCHING, at_least=0
    )
    log_step_count_steps: int | None = setting(None, "Steps between entries of the speed in steps/s.", _WATCHING)
    log_norms: int = setting(
        0,
        "Steps between entries of gradient and update norms. 0 logs none.",
        _WATCHING,
        at_least=0,
        at_most=MOST_STEPS,
    )
    profile: str = setting("", "The first and the last step to profile for TensorBoard, e.g. 100,110.", _WATCHING)
    stall_minutes: float = setting(
        30.0,
        "Leave with exit code 138 after N minutes without a step. 0 never leaves.",
        _WATCHING,
        at_least=0,
        at_most=MOST_TIME,
    )
    max_run_hours: float | None = setting(
        None,
        "Stop with a checkpoint after N hours. The same command then goes on.",
        _WATCHING,
        above=0,
        at_most=MOST_TIME,
    )


@dataclasses.dataclass(frozen=True)
class LaunchSpec(WatchingSpec, WaitingSpec, SessionSpec, DeviceSpec):
    """How a run is launched; the values may change between calls with the same model_dir.

    Each field is the flag of the same name. All tasks of a cluster must have the same values.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "device_filters", tuple(self.device_filters))
        check_settings(self)
