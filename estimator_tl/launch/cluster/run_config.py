"""RunConfig: the one place that makes it."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from estimator_tl.compat import estimator, tf
from estimator_tl.config import LaunchSpec
from estimator_tl.config.launch_spec import PRECISIONS
from estimator_tl.errors import UserError, check_known, nearest
from estimator_tl.files import check_literal
from estimator_tl.launch.cluster.description import Cluster, from_tf_config
from estimator_tl.launch.cluster.strategy import Distribution, distribution_of, make_strategy
from estimator_tl.tf_internals import tpu
from estimator_tl.tf_internals.devices import check_devices

_TF_CONFIG = "TF_CONFIG"
_OF_SESSION = (
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


def run_config(model_dir: str | None = None, **settings: Any) -> Any:
    """Returns a `RunConfig` for a program with a main of its own: distribution, devices, session and checkpoints.

    The cluster is that of the environment variable TF_CONFIG, in any of the forms in the wild; the variable is set to
    its normal form, as Estimator reads it too.

    Args:
      model_dir: of the run.
      **settings: the fields of `estimator_tl.config.LaunchSpec`, such as ``distribution='auto'``, ``num_gpus``,
        ``cpu_replicas`` or ``xla``, which are flags of ``estimator-tl train`` as well; and arguments of
        `tf.estimator.RunConfig`, which win. A `train_distribute` of your own is checked for devices that the session
        lacks.

    Raises:
      UserError: a setting is unknown, or does not fit the machine or the cluster; or TensorFlow takes the name of the
        model_dir as a pattern.

    Example:
      >>> config = etl.run_config("runs/flowers", intra_op_threads=2, save_checkpoints_steps=500)
      >>> config.save_checkpoints_steps, config.session_config.intra_op_parallelism_threads
      (500, 2)
    """
    if model_dir:
        check_literal(model_dir, "model_dir", writes=True)
    known = sorted({*_LAUNCH_FIELDS, *inspect.signature(estimator.RunConfig).parameters})
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise UserError(f"run_config has no setting {unknown[0]!r}; {nearest(unknown[0], known, limit=60)}")
    of_estimator = {name: settings.pop(name) for name in tuple(settings) if name not in _LAUNCH_FIELDS}
    own_session = settings.pop("session_config", None)
    if own_session is not None and not isinstance(own_session, str):
        of_estimator["session_config"] = own_session
    elif own_session:
        settings["session_config"] = own_session
    launch = LaunchSpec(**settings)
    cluster = from_tf_config(os.environ.get(_TF_CONFIG, ""))
    if of_estimator.get("train_distribute") is not None:
        if settings:
            raise UserError(
                f"{next(iter(settings))} has no effect beside a train_distribute of your own; say it in a "
                "ConfigProto, session_config, or leave train_distribute out."
            )
        made = estimator.RunConfig(model_dir=model_dir, **of_estimator)
        check_devices(made.train_distribute, made.session_config)
        return made
    distribution = distribution_of(launch, cluster)
    if cluster and cluster.job == "evaluator" and not cluster.is_distributed:
        distribution = Distribution("off")
    return make_run_config(model_dir, launch, cluster, distribution, **of_estimator)


def make_run_config(
    model_dir: str | None, launch: LaunchSpec, cluster: Cluster | None, distribution: Distribution, **fields: Any
) -> Any:
    """Returns the RunConfig of this process.

    Args:
      model_dir: of the run.
      launch: the settings.
      cluster: of this process, if there is one. It is put into TF_CONFIG, where Estimator and strategies look.
      distribution: from `distribution_of`.
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
    in_cluster = cluster is not None and cluster.job != "evaluator" and distribution.is_of_tasks
    evaluates = cluster is not None and cluster.job == "evaluator"
    with described(cluster if in_cluster or evaluates else None):
        strategy = None if evaluates else make_strategy(distribution)
        if strategy is not None:
            values["train_distribute"] = strategy
        if distribution.on_tpu:
            made = tpu.make_config(distribution.resolver, distribution.loop, {**values, **fields})
        else:
            made = estimator.RunConfig(**{**values, **fields})
    if strategy is not None and distribution.mirrored:
        check_devices(strategy, made.session_config)
    if in_cluster:
        assert cluster is not None
        os.environ[_TF_CONFIG] = cluster.tf_config()  # the coordinator looks there again when training begins
    return made


@contextmanager
def described(cluster: Cluster | None) -> Iterator[None]:
    """A block in which TF_CONFIG describes this cluster, or none."""
    before = os.environ.pop(_TF_CONFIG, None)
    if cluster is not None:
        os.environ[_TF_CONFIG] = cluster.tf_config()
    try:
        yield
    finally:
        os.environ.pop(_TF_CONFIG, None)
        if before is not None:
            os.environ[_TF_CONFIG] = before


def make_session_config(launch: LaunchSpec, cluster: Cluster | None, distribution: Distribution) -> Any:
    """Returns the ConfigProto that the settings ask for; None where Estimator's own will do."""
    check_known("precision", launch.precision, PRECISIONS)
    if launch.precision != "auto":
        tf.config.experimental.enable_tensor_float_32_execution(launch.precision == "tf32")
    usual = LaunchSpec()
    asked = [name for name in _OF_SESSION if getattr(launch, name) != getattr(usual, name)]
    if not asked and not (distribution.mirrored or distribution.is_of_tasks):
        return None
    config = tf.compat.v1.ConfigProto(
        allow_soft_placement=True,
        inter_op_parallelism_threads=launch.inter_op_threads,
        intra_op_parallelism_threads=launch.intra_op_threads,
    )
    rewrite = config.graph_options.rewrite_options
    rewrite.meta_optimizer_iterations = rewrite.ONE  # as Estimator has it
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
        _see_servers(config, cluster)
    if launch.device_filters:
        _check_filters(launch.device_filters)
        del config.device_filters[:]
        config.device_filters.extend(launch.device_filters)
    _merge(config, launch.session_config)
    return config


def evaluation_session_config(launch: LaunchSpec) -> Any:
    """Returns the ConfigProto of an evaluation, which a process makes by itself; None where Estimator's own will do.

    It has the threads, memory and devices that the process may use. Its numbers are those of an export, which knows
    neither ``xla`` nor ``precision``.
    """
    shared = dataclasses.replace(launch, device_filters=(), xla=False, precision="auto")
    return without_peers(make_session_config(shared, None, Distribution("off")))


def without_peers(config: Any) -> Any:
    """Returns a ConfigProto, or None, without the devices of other tasks that it speaks of."""
    if config is None:
        return None
    alone = tf.compat.v1.ConfigProto()
    alone.CopyFrom(config)
    del alone.device_filters[:]
    alone.experimental.share_cluster_devices_in_session = False
    return alone


def _see_servers(config: Any, cluster: Cluster) -> None:
    """Lets a session see the parameter servers and its own task, so that it outlives the others'."""
    own = [] if cluster.job in ("ps", "evaluator") else [f"/job:{cluster.job}/task:{cluster.index}"]
    config.device_filters.extend(["/job:ps", *own])
    # SavedModels place their variables' restoring ops by themselves; without this they see no other task.
    config.experimental.share_cluster_devices_in_session = True


def _check_filters(names: Sequence[str]) -> None:
    for name in names:
        try:
            tf.DeviceSpec.from_string(name)
        except ValueError as error:
            raise UserError(f"device_filters: {name!r} names no device; e.g. /job:ps,/job:worker/task:1.") from error


def _merge(config: Any, text: str) -> None:
    """Merges a ConfigProto in text form, or from a file.

    Raises:
      UserError: it is none.
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
