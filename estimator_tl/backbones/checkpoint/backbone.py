"""Checkpoints with the code of their network: ``checkpoint('model.ckpt', network='nets.py:resnet')``.

The network's function is called once for the description, in a temporary graph.
The Scaffold brings the values into the Estimator's session.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from estimator_tl.backbones.base import Backbone, BuiltBackbone, check_floating, feature_names
from estimator_tl.backbones.checkpoint.files import CheckpointFiles
from estimator_tl.backbones.checkpoint.names import Naming
from estimator_tl.backbones.checkpoint.network import NetworkCall, load_network
from estimator_tl.backbones.digest import joined_digest
from estimator_tl.backbones.effects import Library, check_inference
from estimator_tl.backbones.input.contract import check_input, one_image, read_input
from estimator_tl.backbones.input.graph import InputGraph
from estimator_tl.backbones.keras.model import regularization_losses
from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError, about, check_known
from estimator_tl.specs import POOLINGS
from estimator_tl.structure import CallMode, SourceStructure, SourceVariable
from estimator_tl.tf_internals.eager import run_eagerly_in_thread
from estimator_tl.tf_internals.graphs.flat import FlatGraph
from estimator_tl.tf_internals.graphs.ops import ancestors, used_variables, variables_in_data_order, written_variables
from estimator_tl.types import Tensor, Variable


class CheckpointBackbone(Backbone):
    """A network's function, and a checkpoint with the values of its variables.

    Args:
      path: a checkpoint's prefix, of TensorFlow 1 or 2, or the model_dir of an Estimator.
      network: ``pkg.module:function`` or ``path/file.py:function``. The function takes images and `training`,
        builds the graph on `tf.compat.v1` variables or Keras 2 layers, and returns a tensor, or tensors by name.
      image_size: pixels.
      pooling: for outputs with height and width, or with tokens: avg, max, flatten or none.
      input_range: values that the network takes; by default, the range that follows from its graph, or else [0, 1].
      channels: 3, or 1 for grey images.
      features: the name of a returned tensor, or several names; by default, ``default`` or the only tensor. The
        backbone has only the variables that these tensors depend on.
      scope: a prefix that names have in the checkpoint and not in the network.
      rename: the full name in the checkpoint, for a name or a name prefix in the network; the longest match applies.
      exclude: regex, or several, of names in the network that keep their initializers.
      skip_mismatched: whether variables whose shape differs keep their initializers too, each with a warning.
      ema: whether to use moving averages (``NAME/ExponentialMovingAverage``) where the checkpoint has them.
    """

    def __init__(
        self,
        path: str,
        network: str,
        image_size: int | tuple[int, int] | None = None,
        pooling: str = "avg",
        input_range: tuple[float, float] | None = None,
        channels: int = 3,
        features: str | Sequence[str] | None = None,
        scope: str = "",
        rename: Mapping[str, str] | None = None,
        exclude: str | Sequence[str] = (),
        skip_mismatched: bool = False,
        ema: bool = True,
    ):
        """Reads the checkpoint's names and calls the network for its description; the class describes the arguments.

        Raises:
          UserError: the network or the checkpoint is unusable, or they do not match.
        """
        self.handle = f"checkpoint({path!r}, network={network!r})"
        self.pooling = check_known("pooling", pooling, POOLINGS)
        if channels not in (1, 3):
            raise UserError(f"channels={channels!r} of {self.handle} must be 3, or 1 for grey images.")
        with about(self.handle):
            shape = one_image((None, None, None, channels), image_size)
            naming = Naming.of(scope, rename, exclude, skip_mismatched, ema)
            self._files = CheckpointFiles(path)
            self._network = load_network(network)
            self._features = feature_names(features)
            self.outputs, self.structure, self.draws, self.output_shape, graph = run_eagerly_in_thread(
                functools.partial(self._describe, shape)
            )
            self._keys = naming.keys(self.structure.variables, self._files, network)
            self.input_spec, self.finding = read_input(shape, tf.float32, lambda: graph, image_size, input_range)
        format_name = "an object-based" if self._files.is_object_based else "a name-based"
        count = len(self.structure.variables)
        self.kind = f"network with {format_name} checkpoint: {len(self._keys)} of {count} variables from it"
        averages = sum(key.endswith("/ExponentialMovingAverage") for key in self._keys.values())
        if averages:
            self.kind += f", {averages} of them moving averages"

    def _describe(
        self, shape: Sequence[int]
    ) -> tuple[list[str], SourceStructure, tuple[str, ...], tuple[int | None, ...] | None, InputGraph]:
        """Returns the network's endpoints, its structure, draws and output shape, and its graph."""
        with tf.Graph().as_default() as graph:
            tf.compat.v1.train.get_or_create_global_step()  # so that the network does not make one as its own variable
            inputs = tf.compat.v1.placeholder(tf.float32, [None, *shape[1:]], "images")
            call = self._network.call(inputs, training=False)
            endpoints = [str(key) for key in call.outputs] if isinstance(call.outputs, Mapping) else []
            output = self._joined(call)
            check_floating(output.dtype)
            structure = _structure(self.handle, graph, inputs, output, call)
            effects = Library(graph.as_graph_def()).of_tensors([output.name], [output.name])
            draws = check_inference(self.handle, effects, "assign to variables only where training is True")
            output_shape = tuple(output.shape.as_list()) if output.shape.rank is not None else None
            owners = _owners({_name(variable): variable for variable in call.recording.variables})
            values = {op: functools.partial(self._value, name) for op, name in owners.items()}
            input_graph = InputGraph(FlatGraph(graph.as_graph_def()), inputs.name, [output.name], values)
            return endpoints, structure, draws, output_shape, input_graph

    def _value(self, name: str) -> Any:
        """Returns the checkpoint's value of a variable."""
        key = self._keys[name]
        return self._files.read([key])[key]

    def digest(self) -> str:
        return joined_digest({**self._files.digests, "network": self._network.digest})

    def values(self) -> Mapping[str, Any]:
        return self._values

    @functools.cached_property
    def _values(self) -> dict[str, Any]:
        """The checkpoint's values by variable name, in the dtypes of the network."""
        values = self._files.read(self._keys.values())
        types = {variable.name: tf.as_dtype(variable.dtype).as_numpy_dtype for variable in self.structure.variables}
        return {name: np.asarray(values[key], types[name]) for name, key in self._keys.items()}

    def build(self, inputs: Tensor, mode: CallMode) -> BuiltBackbone:
        inputs = check_input(self.handle, inputs, self.image_spec)
        with _averaging_statistics():
            call = self._network.call(inputs, training=mode.training)
        output = self._joined(call)
        variables = self._match(call.recording.variables)
        matched = {id(variable) for variable in variables.values()}
        _make_local([variable for variable in call.recording.variables if id(variable) not in matched])
        updates = self._updates(call, inputs, output, variables) if mode.training else []
        _keep_only(updates, call.updates)
        return BuiltBackbone(
            features=self.pool(output),
            variables=variables,
            updates=updates,
            regularization_losses=_losses(call, variables),
            initial_values=self.values,
        )

    def _joined(self, call: NetworkCall) -> Any:
        """Returns the features of a call as one tensor; pools and joins them first if there are several."""
        outputs = self._network.endpoints(call.outputs, self._features)
        return outputs[0] if len(outputs) == 1 else self.pool(outputs)

    def _match(self, variables: Sequence[Variable]) -> dict[str, Any]:
        """Returns the graph's variables by their names in the structure, without the variable scope of the caller."""
        outer = tf.compat.v1.get_variable_scope().name
        by_name = {_name(variable).removeprefix(f"{outer}/"): variable for variable in variables}
        missing = [v.name for v in self.structure.variables if v.name not in by_name]
        if missing:
            raise UserError(
                f"network {self._network.spec} gives its variables other names in this graph: {missing[0]} is not "
                f"among {', '.join(list(by_name)[:5]) or 'none'}; name its layers, or use tf.compat.v1.get_variable."
            )
        return {v.name: by_name[v.name] for v in self.structure.variables}

    def _updates(self, call: NetworkCall, inputs: Tensor, output: Any, variables: Mapping[str, Variable]) -> list[Any]:
        """Returns the ops of a call in training mode that update statistics.

        Raises:
          UserError: the network has statistics that no op updates.
        """
        owners, source = _owners(variables), inputs.op
        keras_updates = [update for layer in call.recording.layers for update in layer.updates]
        candidates = list({id(update): update for update in (*call.updates, *keras_updates)}.values())
        # A Keras model inside the network also has updates for the placeholders that it was made with.
        fed_updates = [
            update
            for update in candidates
            if all(op is source or op.type != "Placeholder" for op in ancestors([update], source))
        ]
        updates = [update for update in fed_updates if written_variables([update], owners, source)]
        if self.structure.has_statistics and not written_variables([*updates, output], owners, source):
            raise UserError(
                f"network {self._network.spec} moves no batch-norm statistics when it is called with training=True; "
                "add their update ops to tf.compat.v1.GraphKeys.UPDATE_OPS, or use batch norm inference."
            )
        return updates


def _name(variable: Variable) -> str:
    return str(variable.name).removesuffix(":0")


def _owners(variables: Mapping[str, Variable]) -> dict[str, str]:
    """Returns the name of a variable by the name of its operation, with all copies that a strategy makes."""
    return {
        copy.op.name: name
        for name, variable in variables.items()
        for copy in (getattr(variable, "values", None) or (variable,))
    }


def _structure(handle: str, graph: Any, inputs: Tensor, output: Any, call: NetworkCall) -> SourceStructure:
    trainable = {_name(variable) for variable in graph.get_collection(tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES)}
    for layer in call.recording.layers:
        trainable -= {_name(w) for w in layer.weights} - {_name(w) for w in layer.trainable_weights}
    by_name = {_name(variable): variable for variable in call.recording.variables}
    names = variables_in_data_order(graph.get_operations(), inputs.op, output, _owners(by_name))
    groups: dict[str, int] = {}
    for number, name in enumerate(names):
        groups.setdefault(name.rpartition("/")[0] or name, number)
    variables = [
        SourceVariable(name, tuple(variable.shape.as_list()), variable.dtype.base_dtype.name, name in trainable)
        for name, variable in by_name.items()
        if name in names
    ]
    if not variables:
        raise UserError(
            f"the output of {SOURCE} depends on no variable that the network makes; make them inside its function."
        )
    # Groups follow the order of the data; within a group, variables keep the order in which the network makes them.
    return SourceStructure(
        handle, tuple(sorted(variables, key=lambda v: groups[v.group])), layers=None, one_training_switch=True
    )


def _averaging_statistics() -> Any:
    """Returns a scope in which statistics that a network assigns under a strategy become the mean over the replicas.

    Networks that are older than strategies set no aggregation. Each replica would then keep separate statistics, and a
    checkpoint would have the first replica's.
    """
    aggregation = tf.compat.v1.VariableAggregation

    def create(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        has_aggregation = kwargs.get("aggregation") not in (None, aggregation.NONE)
        if tf.distribute.has_strategy() and kwargs.get("trainable") is False and not has_aggregation:
            dtype = kwargs.get("dtype")
            is_real = dtype is None or tf.as_dtype(dtype).is_floating
            kwargs["aggregation"] = aggregation.MEAN if is_real else aggregation.ONLY_FIRST_REPLICA
        return next_creator(**kwargs)

    return tf.variable_creator_scope(create)


def _make_local(variables: Sequence[Variable]) -> None:
    """Makes variables that the features do not depend on local: they are initialized, but not in checkpoints."""
    keys = tf.compat.v1.GraphKeys
    step = tf.compat.v1.train.get_global_step()
    ours = {id(variable) for variable in variables if variable is not step}
    graph = tf.compat.v1.get_default_graph()
    for key in (keys.GLOBAL_VARIABLES, keys.TRAINABLE_VARIABLES, keys.MODEL_VARIABLES):
        collection = graph.get_collection_ref(key)
        collection[:] = [variable for variable in collection if id(variable) not in ours]
    local = {id(variable) for variable in graph.get_collection(keys.LOCAL_VARIABLES)}
    for variable in variables:
        if id(variable) in ours - local:
            graph.add_to_collection(keys.LOCAL_VARIABLES, variable)


def _keep_only(updates: Sequence[Tensor], call_updates: Sequence[Any]) -> None:
    """Removes the updates of a call from UPDATE_OPS, except for `updates`."""
    dropped = {id(update) for update in call_updates} - {id(update) for update in updates}
    collection = tf.compat.v1.get_default_graph().get_collection_ref(tf.compat.v1.GraphKeys.UPDATE_OPS)
    collection[:] = [update for update in collection if id(update) not in dropped]


def _losses(call: NetworkCall, variables: Mapping[str, Variable]) -> list[tuple[str | None, Any]]:
    """Returns the regularization losses of a call, the same in each replica of a strategy.

    The losses that `get_variable` and TensorFlow 1 layers add to the collection are in the first replica only, so this
    applies their regularizers instead.
    """
    names = {id(variable): name for name, variable in variables.items()}
    losses: list[tuple[str | None, Any]] = [
        (names[id(v)], regularizer(v)) for v, regularizer in call.recording.regularizers if id(v) in names
    ]
    losses += regularization_losses(call.recording.layers, names)
    regularized = {name for name, _ in losses}
    owners = {**_owners({_name(v): v for v in call.recording.variables}), **_owners(variables)}
    for loss in call.losses:
        loss_names = used_variables([loss], owners)
        if loss_names - regularized and loss_names & variables.keys():
            losses.append((next(iter(loss_names)) if len(loss_names) == 1 else None, loss))
    return [(name, tf.cast(loss, tf.float32)) for name, loss in losses if loss is not None]
