"""Makes the RunConfig and the ConfigProto of a process; no other module does."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estimator_tl.compat import estimator, tf
from estimator_tl.config import LaunchSpec
from estimator_tl.config.launch_spec import PRECISIONS
from estimator_tl.errors import UserError, check_known, nearest
from estimator_tl.files import check_literal
from estimator_tl.launch.cluster.description import Cluster, from_tf_config
from estimator_tl.launch.cluster.strategy import Distribution, distribution_of, make_strategy
from estimator_tl.tf_internals import tpu
from estimator_tl.tf_internals.devices import check_devices

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from estimator_tl.config.typed import RunConfigSettings

_TF_CONFIG = "TF_CONFIG"
_SESSION_FIELDS = (
    "session_config",
    "xla",
    "precision",
    "inter_op_threads",
    "intra_op_threads",
    "gpu_memory_fraction",
    "gpu_allow_growth",
    "num_gpus",
    "device_filters",
)
_LAUNCH_FIELDS = tuple(field.name for field in dataclasses.fields(LaunchSpec))


def run_config(model_dir: str | None = None, **settings: Unpack[RunConfigSettings]) -> Any:
    """Returns a `RunConfig` for a program with its own main: distribution, devices, session and checkpoints.

    The environment variable TF_CONFIG describes the cluster, in any of its usual forms. The function sets the variable
    to the normal form, because Estimator reads it too.

    Args:
      model_dir: the run directory.
      **settings: the fields of `estimator_tl.config.LaunchSpec`, such as ``distribution='auto'``, ``num_gpus``,
        ``cpu_replicas`` or ``xla``, which are also flags of ``estimator-tl train``; and arguments of
        `tf.estimator.RunConfig`, which win. If you pass `train_distribute`, it is checked for devices that the session
        lacks.

    Raises:
      UserError: a setting is unknown, or does not fit the machine or the cluster; or TensorFlow would read the name
        of the model_dir as a pattern.

    Example:
      >>> config = etl.run_config("runs/flowers", intra_op_threads=2, save_checkpoints_steps=500)
      >>> config.save_checkpoints_steps, config.session_config.intra_op_parallelism_threads
      (500, 2)
    """
    if model_dir:
        check_literal(model_dir, "model_dir", writes=True)
    names = sorted({*_LAUNCH_FIELDS, *inspect.signature(estimator.RunConfig).parameters})
    unknown = [name for name in settings if name not in names]
    if unknown:
        raise UserError(f"run_config has no setting {unknown[0]!r}; {nearest(unknown[0], names, limit=60)}")
    launch_fields: dict[str, Any] = {name: value for name, value in settings.items() if name in _LAUNCH_FIELDS}
    estimator_fields = {name: value for name, value in settings.items() if name not in _LAUNCH_FIELDS}
    session_config = launch_fields.pop("session_config", None)
    if session_config is not None and not isinstance(session_config, str):
        estimator_fields["session_config"] = session_config
    elif session_config:
        launch_fields["session_config"] = session_config
    launch = LaunchSpec(**launch_fields)
    cluster = from_tf_config(os.environ.get(_TF_CONFIG, ""))
    if estimator_fields.get("train_distribute") is not None:
        if launch_fields:
            raise UserError(
                f"{next(iter(launch_fields))} has no effect beside your own train_distribute; set it in a "
                "ConfigProto, session_config, or leave train_distribute out."
            )
        config = estimator.RunConfig(model_dir=model_dir, **estimator_fields)
        check_devices(config.train_distribute, config.session_config)
        return config
    distribution = distribution_of(launch, cluster)
    if cluster and cluster.job == "evaluator" and not cluster.is_distributed:
        distribution = Distribution("off")
    return make_run_config(model_dir, launch, cluster, distribution, **estimator_fields)


def make_run_config(
    model_dir: str | None, launch: LaunchSpec, cluster: Cluster | None, distribution: Distribution, **fields: Any
) -> Any:
    """Returns the RunConfig of this process.

    Args:
      model_dir: the run directory.
      launch: the settings.
      cluster: the cluster of this process, if any. TF_CONFIG is set to it, where Estimator and strategies read it.
      distribution: the distribution, from `distribution_of`.
      **fields: arguments of RunConfig, which win.
    """
    values: dict[str, Any] = {
        "model_dir": model_dir,
        "keep_checkpoint_every_n_hours": launch.keep_checkpoint_every_n_hours or 10000,
        "session_creation_timeout_secs": launch.session_creation_timeout_secs,
    }
    if "session_config" not in fields:
        values["session_config"] = make_session_config(launch, cluster, distribution)
    if launch.save_checkpoints_secs:
        values["save_checkpoints_secs"] = launch.save_checkpoints_secs
        fields.pop("save_checkpoints_steps", None)
    if launch.log_step_count_steps:
        values["log_step_count_steps"] = launch.log_step_count_steps
        fields.pop("log_step_count_steps", None)
    in_cluster = cluster is not None and cluster.job != "evaluator" and distribution.over_tasks
    evaluates = cluster is not None and cluster.job == "evaluator"
    with described(cluster if in_cluster or evaluates else None):
        strategy = None if evaluates else make_strategy(distribution)
        if strategy is not None:
            values["train_distribute"] = strategy
        if distribution.on_tpu:
            config = tpu.make_config(distribution.resolver, distribution.steps_per_call, {**values, **fields})
        else:
            config = estimator.RunConfig(**{**values, **fields})
    if strategy is not None and distribution.mirrored:
        check_devices(strategy, config.session_config)
    if in_cluster:
        assert cluster is not None
        os.environ[_TF_CONFIG] = cluster.tf_config()  # the coordinator reads it again when training begins
    return config


@contextmanager
def described(cluster: Cluster | None) -> Iterator[None]:
    """A block in which TF_CONFIG describes this cluster, or is unset without a cluster."""
    previous = os.environ.pop(_TF_CONFIG, None)
    if cluster is not None:
        os.environ[_TF_CONFIG] = cluster.tf_config()
    try:
        yield
    finally:
        os.environ.pop(_TF_CONFIG, None)
        if previous is not None:
            os.environ[_TF_CONFIG] = previous


def make_session_config(launch: LaunchSpec, cluster: Cluster | None, distribution: Distribution) -> Any:
    """Returns the ConfigProto for the settings; None if Estimator's default fits them."""
    check_known("precision", launch.precision, PRECISIONS)
    if launch.precision != "auto":
        tf.config.experimental.enable_tensor_float_32_execution(launch.precision == "tf32")
    defaults = LaunchSpec()
    changed = any(getattr(launch, name) != getattr(defaults, name) for name in _SESSION_FIELDS)
    if not changed and not (distribution.mirrored or distribution.over_tasks):
        return None
    config = tf.compat.v1.ConfigProto(
        allow_soft_placement=True,
        inter_op_parallelism_threads=launch.inter_op_threads,
        intra_op_parallelism_threads=launch.intra_op_threads,
    )
    rewrite = config.graph_options.rewrite_options
    rewrite.meta_optimizer_iterations = rewrite.ONE  # Estimator's default
    if launch.precision == "bfloat16":
        rewrite.auto_mixed_precision_onednn_bfloat16 = rewrite.ON
    if launch.xla:
        config.graph_options.optimizer_options.global_jit_level = tf.compat.v1.OptimizerOptions.ON_1
    if launch.gpu_memory_fraction:
        config.gpu_options.per_process_gpu_memory_fraction = launch.gpu_memory_fraction
    config.gpu_options.allow_growth = launch.gpu_allow_growth
    if launch.num_gpus is not None:
        config.device_count["GPU"] = launch.num_gpus
    if distribution.mirrored and distribution.devices[0].startswith("/cpu"):
        config.device_count["CPU"] = distribution.replicas
    config.isolate_session_state = distribution.on_tpu
    if distribution.has_servers:
        assert cluster is not None
        _filter_devices(config, cluster)
    if launch.device_filters:
        _check_filters(launch.device_filters)
        del config.device_filters[:]
        config.device_filters.extend(launch.device_filters)
    _merge(config, launch.session_config)
    return config


def evaluation_session_config(launch: LaunchSpec) -> Any:
    """Returns the ConfigProto of an evaluation in one process; None if Estimator's default fits the settings.

    It keeps the limits on threads, memory and devices. It leaves out ``xla`` and ``precision``, so that an evaluation
    computes the same numbers as an export.
    """
    limits = dataclasses.replace(launch, device_filters=(), xla=False, precision="auto")
    return without_peers(make_session_config(limits, None, Distribution("off")))


def without_peers(config: Any) -> Any:
    """Returns a copy of a ConfigProto without the devices of other tasks; None for None."""
    if config is None:
        return None
    local = tf.compat.v1.ConfigProto()
    local.CopyFrom(config)
    del local.device_filters[:]
    local.experimental.share_cluster_devices_in_session = False
    return local


def _filter_devices(config: Any, cluster: Cluster) -> None:
    """Limits a session to the parameter servers and its own task, so that it outlives the other workers."""
    config.device_filters.append("/job:ps")
    if cluster.job not in ("ps", "evaluator"):
        config.device_filters.append(f"/job:{cluster.job}/task:{cluster.index}")
    # SavedModels place the restore ops of their variables themselves; without this they see no other task.
    config.experimental.share_cluster_devices_in_session = True


def _check_filters(names: Sequence[str]) -> None:
    for name in names:
        try:
            tf.DeviceSpec.from_string(name)
        except ValueError as error:
            raise UserError(f"device_filters: {name!r} names no device; e.g. /job:ps,/job:worker/task:1.") from error


def _merge(config: Any, text: str) -> None:
    """Merges a ConfigProto in text form, or a file with one, into a ConfigProto.

    Raises:
      UserError: the text is not a ConfigProto.
    """
    if not text:
        return
    from google.protobuf import text_format

    try:
        text_format.Merge(Path(text).read_text() if os.path.isfile(text) else text, config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UserError(
            f"session_config is not a ConfigProto in text form ({error}); e.g. 'graph_options {{ place_pruned_graph: "
            "true }'."
        ) from error
