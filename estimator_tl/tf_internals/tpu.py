"""TPUEstimator's side of a model_fn, and TPUs as this process sees them.

On a TPU a step is compiled as a whole and repeated inside of one session call, so what a model_fn otherwise leaves to
the session (summaries, metrics, a Scaffold) has to be handed over in other forms.
https://cloud.google.com/tpu/docs/using-estimator-api
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.errors import LostPeersError, UserError, first_line
from estimator_tl.revival.api import load_v1_estimator

#: What TPUEstimator writes by itself.
_WRITTEN = "loss"


def cores_of(params: Any) -> int | None:
    """Returns how many cores share a step, where TPUEstimator calls a model_fn for a TPU; None elsewhere."""
    if not params or not params.get("use_tpu"):
        return None
    return int(params["context"].num_replicas) if "context" in params else 1


def mean_over_cores(gradients: Sequence[tuple[Any, Any]], cores: int) -> list[tuple[Any, Any]]:
    """Returns gradients as means over all cores, each of which has its own part of the batch.

    `CrossReplicaSum` has no kernel but on TPUs, so that one core does without it.

    Args:
      gradients: pairs with variables, as `compute_gradients` gives them; no None.
      cores: how many share the step.
    """
    tf = load_tensorflow()
    if cores == 1:
        return list(gradients)
    total = tf.compat.v1.tpu.cross_replica_sum
    return [(total(tf.convert_to_tensor(gradient)) / cores, variable) for gradient, variable in gradients]


def spec(**fields: Any) -> Any:
    """Returns a TPUEstimatorSpec. Args: its fields."""
    return load_v1_estimator().tpu.TPUEstimatorSpec(**fields)


@contextlib.contextmanager
def outside_of_steps() -> Iterator[None]:
    """A block whose ops are made outside of a step that is compiled, such as placeholders, which XLA has not."""
    tf = load_tensorflow()
    graph = tf.compat.v1.get_default_graph()
    inside = graph.building_function or graph._get_control_flow_context() is not None
    with tf.init_scope() if inside else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def kept_scalars(on_tpu: bool) -> Iterator[dict[str, Any]]:
    """A block whose scalar summaries are not for the session: it cannot fetch from inside of a TPU's loop.

    Args:
      on_tpu: False leaves all to the session.

    Yields:
      The scalars by their tags, complete when the block ends.
    """
    tf = load_tensorflow()
    collection = tf.compat.v1.get_collection_ref(tf.compat.v1.GraphKeys.SUMMARIES)
    before = len(collection)
    found: dict[str, Any] = {}
    yield found
    if not on_tpu:
        return
    for summary in collection[before:]:
        if summary.op.type == "ScalarSummary":
            found[summary.op.name.rpartition("/")[2]] = summary.op.inputs[1]
    del collection[before:]


def host_call(scalars: Mapping[str, Any], model_dir: str | None, step: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Returns the host_call that writes scalars as summaries: it has tensors of rank 1, from each core one value.

    Args:
      scalars: float tensors by tag; means over the cores are written.
      model_dir: where to.
      step: the global step.
    """
    tf = load_tensorflow()
    tags = [tag for tag in scalars if tag != _WRITTEN]
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
      tpu: ``local`` on a TPU VM; a name that Google Cloud knows; or an address, ``grpc://host:port``.
      zone: of a name; the machine's own by default.
      project: of a name; the machine's own by default.

    Raises:
      UserError: there is no such TPU.
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
    except Exception as error:  # of the client library, of the network, of credentials
        raise UserError(
            f"tpu {tpu} cannot be resolved ({first_line(error)}); check --tpu, --tpu_zone and --gcp_project, or give "
            "its address, --tpu=grpc://HOST:8470."
        ) from error
    return resolver


def core_count(resolver: Any, wait_secs: int) -> int:
    """Returns how many cores the TPU of a resolver has; asks the TPU itself.

    Raises:
      LostPeersError: it does not answer within `wait_secs`; TensorFlow itself would ask for a day.
      UserError: the address is of a server without a TPU.
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
    """Returns the RunConfig of a TPUEstimator, whose hosts read their own parts of the data.

    Args:
      resolver: from `resolve`.
      iterations_per_loop: steps that one session call makes.
      fields: arguments of RunConfig.
    """
    api = load_v1_estimator().tpu
    settings = api.TPUConfig(
        iterations_per_loop=iterations_per_loop, per_host_input_for_training=api.InputPipelineConfig.PER_HOST_V2
    )
    return api.RunConfig(tpu_config=settings, cluster=resolver, **fields)


def make_estimator(model_fn: Callable[..., Any], model_dir: str, config: Any, batch_size: int) -> Any:
    """Returns a TPUEstimator that trains on its TPU. Args: batch_size: of all cores together."""
    api = load_v1_estimator().tpu
    return api.TPUEstimator(
        model_fn, model_dir, config, params={}, use_tpu=True, train_batch_size=batch_size, eval_on_tpu=False
    )


def per_host(input_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Returns an input_fn for TPUEstimator, which calls it once for each host.

    Args:
      input_fn: takes a RunConfig and a `tf.distribute.InputContext`, and gives the batches of cores, a Dataset. Their
        int64 becomes int32, as TPUs are fed no wider integers.
    """
    tf = load_tensorflow()

    def narrow(data: Any) -> Any:
        return data.map(lambda *batch: tf.nest.map_structure(_narrow, batch))

    def _narrow(tensor: Any) -> Any:
        return tf.cast(tensor, tf.int32) if tensor.dtype == tf.int64 else tensor

    def called(params: Any, config: Any) -> Any:
        context = params.get("context")
        if context is None:
            return narrow(input_fn(config=config))
        _, host, _, _ = context.current_input_fn_deployment()
        share = tf.distribute.InputContext(context.num_hosts, host, context.num_replicas)
        return narrow(input_fn(config=config, input_context=share))

    return called
