"""What TPUEstimator needs from a model_fn, and the TPUs that this process can reach.

On a TPU, one session call runs a loop of compiled steps. So a model_fn has to pass summaries, metrics and Scaffold to
TPUEstimator in other forms than to a session. https://cloud.google.com/tpu/docs/using-estimator-api
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.errors import LostPeersError, UserError, first_line
from estimator_tl.revival.api import load_v1_estimator
from estimator_tl.types import Dataset, EstimatorSpec, Tensor

#: The tag of the summary that TPUEstimator writes already.
_LOSS = "loss"


def cores_of(params: Any) -> int | None:
    """Returns the number of cores that share a step if TPUEstimator calls a model_fn for a TPU; otherwise None."""
    if not params or not params.get("use_tpu"):
        return None
    if "context" not in params:
        return 1
    return int(params["context"].num_replicas)


def mean_over_cores(gradients: Sequence[tuple[Any, Any]], cores: int) -> list[tuple[Any, Any]]:
    """Returns the means of gradients over all cores; each core has computed them for a different part of the batch.

    `CrossReplicaSum` has a kernel on TPUs only, so a single core skips it.

    Args:
      gradients: pairs of gradient and variable, as `compute_gradients` returns them; no gradient is None.
      cores: the number of cores that share the step.
    """
    tf = load_tensorflow()
    if cores == 1:
        return list(gradients)
    sum_over_cores = tf.compat.v1.tpu.cross_replica_sum
    return [(sum_over_cores(tf.convert_to_tensor(gradient)) / cores, variable) for gradient, variable in gradients]


def spec(**fields: Any) -> EstimatorSpec:
    """Returns a TPUEstimatorSpec. Args: the fields of the spec."""
    return load_v1_estimator().tpu.TPUEstimatorSpec(**fields)


@contextlib.contextmanager
def outside_compiled_step() -> Iterator[None]:
    """A block whose ops are created outside of the compiled step, such as placeholders, which XLA does not support."""
    tf = load_tensorflow()
    graph = tf.compat.v1.get_default_graph()
    inside = graph.building_function or graph._get_control_flow_context() is not None
    with tf.init_scope() if inside else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def collecting_scalars(on_tpu: bool) -> Iterator[dict[str, Any]]:
    """A block that collects its scalar summaries on a TPU, because a session cannot fetch from inside the TPU's loop.

    Args:
      on_tpu: False leaves all summaries to the session.

    Yields:
      The scalars by tag, complete when the block ends.
    """
    tf = load_tensorflow()
    collection = tf.compat.v1.get_collection_ref(tf.compat.v1.GraphKeys.SUMMARIES)
    before = len(collection)
    scalars: dict[str, Any] = {}
    yield scalars
    if not on_tpu:
        return
    for summary in collection[before:]:
        if summary.op.type == "ScalarSummary":
            scalars[summary.op.name.rpartition("/")[2]] = summary.op.inputs[1]
    del collection[before:]


def complete_spec(
    spec: EstimatorSpec, scaffold: Any, scalars: Mapping[str, Any], model_dir: str | None
) -> EstimatorSpec:
    """Returns a TPUEstimatorSpec with what an EstimatorSpec leaves to the session: summaries and initial values.

    Args:
      spec: the TPUEstimatorSpec of a head.
      scaffold: assigns the initial values; None for none.
      scalars: from `collecting_scalars`; written by training only.
      model_dir: the folder for the summaries, or None to write nothing.
    """
    tf = load_tensorflow()
    if spec.train_op is not None:
        spec = spec._replace(host_call=host_call(scalars, model_dir, tf.compat.v1.train.get_global_step()))
    return spec._replace(scaffold_fn=(lambda: scaffold) if scaffold else None)


def host_call(scalars: Mapping[str, Any], model_dir: str | None, step: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Returns the host_call that writes scalars as summaries, as the pair of its function and its arguments.

    The arguments have shape [1] here; TPUEstimator calls the function with one value from each core.

    Args:
      scalars: float tensors by tag; the summaries are means over the cores.
      model_dir: the folder for the summaries, or None to write nothing.
      step: the global step.
    """
    tf = load_tensorflow()
    tags = [tag for tag in scalars if tag != _LOSS]
    scalar = tf.compat.v1.SummaryMetadata(plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"))

    def write(steps: Any, *values: Any) -> Any:
        writer = tf.summary.create_file_writer(model_dir)
        with writer.as_default():
            for tag, value in zip(tags, values):
                # tf.summary.scalar needs the package tensorboard.
                tf.summary.write(tag, tf.reduce_mean(value), step=steps[0], metadata=scalar)
        return tf.compat.v1.summary.all_v2_summary_ops()

    if model_dir is None or not tags:
        return (lambda steps: steps), [tf.reshape(step, [1])]
    values = [tf.reshape(tf.cast(scalars[tag], tf.float32), [1]) for tag in tags]
    return write, [tf.reshape(step, [1]), *values]


def resolve(tpu: str, zone: str | None, project: str | None) -> Any:
    """Returns the TPUClusterResolver of a TPU.

    Args:
      tpu: ``local`` on a TPU VM; the name of a TPU in Google Cloud; or an address, ``grpc://host:port``.
      zone: zone of a named TPU; by default the zone of this machine.
      project: project of a named TPU; by default the project of this machine.

    Raises:
      UserError: the TPU does not exist or cannot be resolved.
    """
    tf = load_tensorflow()
    if tpu == "local":
        if not tf.config.list_physical_devices("TPU"):
            raise UserError(
                "tpu local, but this machine shows TensorFlow no TPU; run on a TPU VM with TensorFlow's build for TPUs "
                "(scripts/tpu_vm.sh starts a command there), or name the TPU with --tpu."
            )
        return tf.distribute.cluster_resolver.TPUClusterResolver("local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu, zone or None, project or None)
        resolver.cluster_spec()
    except Exception as error:  # from the client library, the network or the credentials
        raise UserError(
            f"tpu {tpu} cannot be resolved ({first_line(error)}); check --tpu, --tpu_zone and --gcp_project, or give "
            "its address, --tpu=grpc://HOST:8470."
        ) from error
    return resolver


def core_count(resolver: Any, wait_secs: int) -> int:
    """Asks the TPU of a resolver for its number of cores.

    Args:
      resolver: from `resolve`.
      wait_secs: seconds to wait for an answer.

    Raises:
      LostPeersError: the TPU does not answer within `wait_secs`; TensorFlow itself would wait for a day.
      UserError: the server at the address has no TPU.
    """
    tf = load_tensorflow()
    config = tf.compat.v1.ConfigProto(operation_timeout_in_ms=wait_secs * 1000)
    cluster = resolver.cluster_spec()
    if cluster:
        config.cluster_def.CopyFrom(cluster.as_cluster_def())
    master = resolver.master()
    try:
        with tf.Graph().as_default(), tf.compat.v1.Session(master, config=config) as session:
            count: int = sum(device.device_type == "TPU" for device in session.list_devices())
    except (tf.errors.DeadlineExceededError, tf.errors.UnavailableError) as error:
        raise LostPeersError(
            f"the TPU at {master} has not answered for {wait_secs} s; start it, and run again."
        ) from error
    if not count:
        raise UserError(f"the server at {master} has no TPU; check --tpu.")
    return count


def make_config(resolver: Any, iterations_per_loop: int, fields: Mapping[str, Any]) -> Any:
    """Returns the RunConfig of a TPUEstimator; each host reads its part of the data.

    Args:
      resolver: from `resolve`.
      iterations_per_loop: steps that one session call makes.
      fields: other arguments of RunConfig.
    """
    api = load_v1_estimator().tpu
    settings = api.TPUConfig(
        iterations_per_loop=iterations_per_loop, per_host_input_for_training=api.InputPipelineConfig.PER_HOST_V2
    )
    return api.RunConfig(tpu_config=settings, cluster=resolver, **fields)


def make_estimator(model_fn: Callable[..., Any], model_dir: str, config: Any, batch_size: int) -> Any:
    """Returns a TPUEstimator that trains on a TPU. Args: batch_size: the examples of a step, over all cores."""
    api = load_v1_estimator().tpu
    return api.TPUEstimator(
        model_fn, model_dir, config, params={}, use_tpu=True, train_batch_size=batch_size, eval_on_tpu=False
    )


def per_host(input_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Returns an input_fn for TPUEstimator, which calls it once for each host.

    Args:
      input_fn: takes a RunConfig and a `tf.distribute.InputContext`, and returns a Dataset with one batch for each
        core. Its int64 tensors become int32, because TPUs take no wider integers.
    """
    tf = load_tensorflow()

    def narrow(tensor: Tensor) -> Any:
        return tf.cast(tensor, tf.int32) if tensor.dtype == tf.int64 else tensor

    def narrow_all(dataset: Dataset) -> Any:
        return dataset.map(lambda *batch: tf.nest.map_structure(narrow, batch))

    def input_fn_of_host(params: Any, config: Any) -> Any:
        context = params.get("context")
        if context is None:
            return narrow_all(input_fn(config=config))
        _, host, _, _ = context.current_input_fn_deployment()
        input_context = tf.distribute.InputContext(context.num_hosts, host, context.num_replicas)
        return narrow_all(input_fn(config=config, input_context=input_context))

    return input_fn_of_host
