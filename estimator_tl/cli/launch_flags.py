"""The flags of how a run is launched and evaluated."""

from __future__ import annotations

import dataclasses
from typing import Any

from estimator_tl.cli import numeric_flags
from estimator_tl.cli.command import CommandFlags

_WHERE, _SESSION, _CHECKPOINTS, _EVALUATION = "Distribution", "Session", "Checkpoints and summaries", "Evaluation"


def define_launch(command: CommandFlags) -> None:
    """Adds the flags of LaunchSpec."""
    from estimator_tl.config.launch_spec import ALL_REDUCE, DISTRIBUTIONS, PRECISIONS

    command.choice(
        _WHERE,
        "distribution",
        "auto",
        list(DISTRIBUTIONS),
        "auto: as the cluster says; in one process mirrored where there are several GPUs.",
    )
    command.integer(_WHERE, "num_gpus", None, "GPUs of this process (default: all there are; 0 for none).", at_least=0)
    command.integer(
        _WHERE,
        "cpu_replicas",
        1,
        "replicas of mirrored training on the CPU, to try it without GPUs.",
        at_most=1024,
    )
    command.choice(_WHERE, "all_reduce_alg", "auto", list(ALL_REDUCE), "how replicas sum gradients.")
    command.string(_WHERE, "tpu", "", "a TPU: `local` on a TPU VM, a name in Google Cloud, or grpc://HOST:PORT.")
    command.string(_WHERE, "tpu_zone", "", "the zone of a TPU's name (default: this machine's).")
    command.string(_WHERE, "gcp_project", "", "the project of a TPU's name (default: this machine's).")
    command.integer(_WHERE, "iterations_per_loop", 100, "steps of a TPU between checkpoints, logs and signals.")
    command.integer(_WHERE, "num_tpu_cores", None, "cores that the TPU must have (default: as many as it has).")
    command.integer(_WHERE, "cluster_wait_secs", 600, "how long tasks wait for each other before they leave with 138.")
    command.number(
        _WHERE,
        "stall_minutes",
        30.0,
        "without a step, before a task leaves with 138; 0 never leaves.",
        at_least=0,
        at_most=numeric_flags.MOST_TIME,
    )
    command.number(
        _WHERE,
        "max_run_hours",
        None,
        "stop with a checkpoint after that; the same command goes on.",
        above=0,
        at_most=numeric_flags.MOST_TIME,
    )
    command.choice(
        _SESSION,
        "precision",
        "auto",
        list(PRECISIONS),
        "of large products; variables stay float32. tf32 (auto) and float32 are for GPUs, bfloat16 for the CPU.",
    )
    command.boolean(_SESSION, "xla", False, "let XLA compile parts of the graph.")
    command.integer(
        _SESSION, "inter_op_threads", 0, "ops at a time (default: TensorFlow's choice).", at_least=0, at_most=4096
    )
    command.integer(
        _SESSION, "intra_op_threads", 0, "threads of an op (default: TensorFlow's choice).", at_least=0, at_most=4096
    )
    command.number(
        _SESSION, "gpu_memory_fraction", None, "share of each GPU's memory to take (default: all).", above=0, at_most=1
    )
    command.boolean(_SESSION, "gpu_allow_growth", False, "take the memory of GPUs as it is needed.")
    command.string(
        _SESSION, "session_config", "", "a ConfigProto in text form, or a file with one; wins over the others."
    )
    command.many(
        _SESSION, "device_filters", [], "what of the cluster the session sees, e.g. /job:ps,/job:worker/task:1."
    )
    command.integer(
        _SESSION, "session_creation_timeout_secs", 7200, "how long a worker waits for initialized variables."
    )
    command.integer(_CHECKPOINTS, "save_checkpoints_secs", None, "seconds between checkpoints, in place of steps.")
    command.integer(
        _CHECKPOINTS, "keep_checkpoint_every_n_hours", 0, "checkpoints that are never deleted; 0: none.", at_least=0
    )
    command.integer(_CHECKPOINTS, "log_step_count_steps", None, "steps between entries of steps per second.")
    command.integer(
        _CHECKPOINTS, "log_norms", 0, "steps between entries of gradients' and updates' norms; 0: none.", at_least=0
    )
    command.string(_CHECKPOINTS, "profile", "", "profile these steps for TensorBoard, e.g. 100,110.")


def define_evaluation(command: CommandFlags) -> None:
    """Adds the flags of EvaluationSpec."""
    from estimator_tl.config.evaluation_spec import EXPORTERS, GOALS

    command.string(_EVALUATION, "metric", "accuracy", "which one decides about the best export and about stopping.")
    command.choice(_EVALUATION, "metric_goal", "auto", list(GOALS), "auto: min for losses and errors, else max.")
    command.integer(
        _EVALUATION,
        "early_stopping_steps",
        None,
        "stop when the metric has not got better for so many steps.",
        at_most=10**15,
    )
    command.number(_EVALUATION, "stop_at", None, "stop when the metric is at least as good.")
    command.many(
        _EVALUATION, "exporters", [], f"export while training, under MODEL_DIR/export: some of {','.join(EXPORTERS)}."
    )
    command.integer(_EVALUATION, "exports_to_keep", 5, "versions that the exporters `best` and `latest` keep.")
    command.integer(
        _EVALUATION,
        "eval_every_steps",
        None,
        "evaluate in memory every so many steps, not checkpoints but the last.",
        at_most=10**15,
    )
    command.number(
        _EVALUATION,
        "eval_every_secs",
        None,
        "evaluate in memory every so many seconds.",
        above=0,
        at_most=numeric_flags.MOST_TIME,
    )
    command.number(
        _EVALUATION,
        "eval_throttle_secs",
        0.0,
        "at least between two evaluations.",
        at_least=0,
        at_most=numeric_flags.MOST_TIME,
    )
    command.integer(_EVALUATION, "eval_steps", None, "batches of an evaluation (default: all).")


def settings_of(kind: Any, values: Any) -> dict[str, Any]:
    """Returns the arguments of a LaunchSpec or EvaluationSpec from the flags of the same names."""
    return {field.name: getattr(values, field.name) for field in dataclasses.fields(kind)}
