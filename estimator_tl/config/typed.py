"""The settings that programs pass by name, typed, so that an editor completes them.

The specs hold their defaults, bounds and help; a test keeps names and types equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict


class ProgramSettings(TypedDict, total=False):
    """Settings of `etl.train_and_evaluate`: of `EvaluationSpec`, and how long tasks wait."""

    metric: str
    metric_goal: str
    early_stopping_steps: int | None
    stop_at: float | None
    exporters: Sequence[str]
    exports_to_keep: int
    eval_every_steps: int | None
    eval_every_secs: float | None
    eval_throttle_secs: float
    eval_steps: int | None
    stall_minutes: float
    cluster_wait_secs: int
    max_run_hours: float | None


class RunConfigSettings(TypedDict, total=False):
    """Settings of `etl.run_config`: of `LaunchSpec`, and arguments of `tf.estimator.RunConfig`."""

    distribution: str
    num_gpus: int | None
    cpu_replicas: int
    all_reduce_alg: str
    tpu: str
    tpu_zone: str
    gcp_project: str
    iterations_per_loop: int
    num_tpu_cores: int | None
    precision: str
    xla: bool
    inter_op_threads: int
    intra_op_threads: int
    gpu_memory_fraction: float | None
    gpu_allow_growth: bool
    session_config: Any  # a ConfigProto, or one in text form
    device_filters: Sequence[str]
    cluster_wait_secs: int
    session_creation_timeout_secs: int
    save_checkpoints_secs: int | None
    keep_checkpoint_every_n_hours: int
    log_step_count_steps: int | None
    log_norms: int
    profile: str
    stall_minutes: float
    max_run_hours: float | None
    # Of RunConfig alone.
    tf_random_seed: int | None
    save_summary_steps: int | None
    save_checkpoints_steps: int | None
    keep_checkpoint_max: int | None
    train_distribute: Any
    device_fn: Callable[..., str] | None
    protocol: str | None
    eval_distribute: Any
    experimental_distribute: Any
    experimental_max_worker_delay_secs: int | None
    checkpoint_save_graph_def: bool
