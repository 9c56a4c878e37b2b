"""Checkpoints with the code of their network: ``checkpoint('model.ckpt', network='nets.py:resnet')``.

The network's function is called once, in a graph that is thrown away, for the
description. Values reach the Estimator's session through the Scaffold.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from estimator_tl.backbones.base import Backbone, BuiltBackbone, check_floating, feature_names
from estimator_tl.backbones.checkpoint.files import CheckpointFiles
from estimator_tl.backbones.checkpoint.names import Naming
from estimator_tl.backbones.checkpoint.network import Called, load_network
from estimator_tl.backbones.digest import joined_digest
from estimator_tl.backbones.effects import Library, check_inference
from estimator_tl.backbones.input.contract import check_input, one_image, read_input
from estimator_tl.backbones.input.graph import InputGraph
from estimator_tl.backbones.keras.model import regularization_losses
from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError, about, check_known
from estimator_tl.specs import POOLINGS
from estimator_tl.structure import CallMode, SourceStructure, SourceVariable
from estimator_tl.tf_internals.eager import run_eagerly_apart
from estimator_tl.tf_internals.graphs.flat import FlatGraph
from estimator_tl.tf_internals.graphs.ops import ancestors, met_by_data, used_variables, written_variables


class CheckpointBackbone(Backbone):
    """A network's function, and a checkpoint with the values of its variables.

    Args:
      path: a checkpoint's prefix, of TensorFlow 1 or 2, or the model_dir of an Estimator.
      network: ``pkg.module:function`` or ``path/file.py:function``. The function takes pictures and `training`,
        builds the graph on `tf.compat.v1` variables or Keras 2 layers, and returns a tensor, or tensors by name.
      image_size: pixels.
      pooling: for outputs with height and width, or with tokens: avg, max, flatten or none.
      input_range: values that the network takes; by default, those that follow from what it does to them, or else
        [0, 1].
      channels: 3, or 1 for grey pictures.
      features: which of the tensors, by name, or several; ``default`` or the only one where it is left out. What
        they do not depend on is no part of the source.
      scope: the checkpoint's names begin with it, those of the network do not.
      rename: the checkpoint's name, in whole, for a name or the beginning of names in the network; the longest
        that fits.
      exclude: regex, or several, of names in the network that keep their initializers.
      skip_mismatched: whether variables of another shape do so too, each with a warning.
      ema: whether moving averages (``NAME/ExponentialMovingAverage``) are used where the checkpoint has them.
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
        """Reads the checkpoint's names and calls the network for its description; the class says what is what.

        Raises:
          UserError: the network or the checkpoint cannot be used, or they do not fit.
        """
        self.handle = f"checkpoint({path!r}, network={network!r})"
        self.pooling = check_known("pooling", pooling, POOLINGS)
        if channels not in (1, 3):
            raise UserError(f"channels={channels!r} of {self.handle} must be 3, or 1 for grey pictures.")
        with about(self.handle):
            shape = one_image((None, None, None, channels), image_size)
            naming = Naming.of(scope, rename, exclude, skip_mismatched, ema)
            self._files = CheckpointFiles(path)
            self._network = load_network(network)
            self._features = feature_names(features)
            self.outputs, self.structure, self.draws, self.output_shape, graph = run_eagerly_apart(
                functools.partial(self._describe, shape)
            )
            self._keys = naming.keys(self.structure.variables, self._files, network)
            self.input_spec, self.finding = read_input(shape, tf.float32, lambda: graph, image_size, input_range)
        averages = sum(key.endswith("/ExponentialMovingAverage") for key in self._keys.values())
        self.kind = (
            f"network with {'an object-based' if self._files.is_object_based else 'a name-based'} checkpoint: "
            f"{len(self._keys)} of {len(self.structure.variables)} variables from it"
            + (f", {averages} of them moving averages" if averages else "")
        )

    def _describe(
        self, shape: Sequence[int]
    ) -> tuple[list[str], SourceStructure, tuple[str, ...], tuple[int | None, ...] | None, InputGraph]:
        """Returns the network's endpoints, its structure, draws and output shape, and the graph that says so."""
        with tf.Graph().as_default() as graph:
            tf.compat.v1.train.get_or_create_global_step()  # not the network's own, where it asks for one
            inputs = tf.compat.v1.placeholder(tf.float32, [None, *shape[1:]], "pictures")
            called = self._network.call(inputs, training=False)
            endpoints = [str(key) for key in called.outputs] if isinstance(called.outputs, Mapping) else []
            output = self._joined(called)
            check_floating(output.dtype)
            structure = _structure(self.handle, graph, inputs, output, called)
            effects = Library(graph.as_graph_def()).of_tensors([output.name], [output.name])
            draws = check_inference(self.handle, effects, "assign to variables only where training is True")
            output_shape = tuple(output.shape.as_list()) if output.shape.rank is not None else None
            owners = _owners({_name(variable): variable for variable in called.made.variables})
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
        """Values by variable name, in the types of the network; without those that keep their initializers."""
        read = self._files.read(self._keys.values())
        types = {variable.name: tf.as_dtype(variable.dtype).as_numpy_dtype for variable in self.structure.variables}
        return {name: np.asarray(read[key], types[name]) for name, key in self._keys.items()}

    def build(self, inputs: Any, mode: CallMode) -> BuiltBackbone:
        inputs = check_input(self.handle, inputs, self.image_spec)
        with _averaging_statistics():
            called = self._network.call(inputs, training=mode.training)
        output = self._joined(called)
        variables = self._match(called.made.variables)
        _set_apart([made for made in called.made.variables if all(made is not known for known in variables.values())])
        updates = self._updates(called, inputs, output, variables) if mode.training else []
        _keep_updates(called.updates, updates)
        return BuiltBackbone(
            features=self.pool(output),
            variables=variables,
            updates=updates,
            regularization_losses=_losses(called, variables),
            initial_values=self.values,
        )

    def _joined(self, called: Called) -> Any:
        """Returns the tensor that a call gives for features; several are pooled already."""
        outputs = self._network.endpoints(called.outputs, self._features)
        return outputs[0] if len(outputs) == 1 else self.pool(outputs)

    def _match(self, made: Sequence[Any]) -> dict[str, Any]:
        """Returns the graph's variables by name of the structure, which is their own below the scope of the caller."""
        outer = tf.compat.v1.get_variable_scope().name
        known = {_name(variable).removeprefix(f"{outer}/"): variable for variable in made}
        lost = [v.name for v in self.structure.variables if v.name not in known]
        if lost:
            raise UserError(
                f"network {self._network.spec} gives its variables other names in this graph: {lost[0]} is not among "
                f"{', '.join(list(known)[:5]) or 'none'}; name its layers, or use tf.compat.v1.get_variable."
            )
        return {v.name: known[v.name] for v in self.structure.variables}

    def _updates(self, called: Called, inputs: Any, output: Any, variables: Mapping[str, Any]) -> list[Any]:
        """Returns the ops of one call in training mode that move statistics.

        Raises:
          UserError: there are statistics, but nothing moves them.
        """
        owners, source = _owners(variables), inputs.op
        keras = [update for layer in called.made.layers for update in layer.updates]
        found = list({id(update): update for update in (*called.updates, *keras)}.values())
        # A Keras model inside the network has updates for the placeholders that it was made with, too.
        fed = [u for u in found if all(op.type != "Placeholder" for op in ancestors([u], source) if op is not source)]
        updates = [update for update in fed if written_variables([update], owners, source)]
        if self.structure.has_statistics and not written_variables([*updates, output], owners, source):
            raise UserError(
                f"network {self._network.spec} moves no batch-norm statistics when it is called with training=True; "
                "add their update ops to tf.compat.v1.GraphKeys.UPDATE_OPS, or use batch norm inference."
            )
        return updates


def _name(variable: Any) -> str:
    return str(variable.name).removesuffix(":0")


def _owners(variables: Mapping[str, Any]) -> dict[str, str]:
    """Returns a variable's name by the name of its operation, for each copy of a strategy."""
    return {
        copy.op.name: name
        for name, variable in variables.items()
        for copy in (getattr(variable, "values", None) or (variable,))
    }


def _structure(handle: str, graph: Any, inputs: Any, output: Any, called: Called) -> SourceStructure:
    trainable = {_name(variable) for variable in graph.get_collection(tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES)}
    for layer in called.made.layers:
        trainable -= {_name(w) for w in layer.weights} - {_name(w) for w in layer.trainable_weights}
    made = {_name(variable): variable for variable in called.made.variables}
    met = met_by_data(graph.get_operations(), inputs.op, output, _owners(made))
    groups: dict[str, int] = {}
    for number, name in enumerate(met):
        groups.setdefault(name.rpartition("/")[0] or name, number)
    variables = [
        SourceVariable(name, tuple(variable.shape.as_list()), variable.dtype.base_dtype.name, name in trainable)
        for name, variable in made.items()
        if name in met
    ]
    if not variables:
        raise UserError(
            f"the output of {SOURCE} depends on no variable that the network makes; make them inside its function."
        )
    # In the order of the data, but each group in one piece, as the network made it.
    return SourceStructure(
        handle, tuple(sorted(variables, key=lambda v: groups[v.group])), layers=None, one_training_switch=True
    )


def _averaging_statistics() -> Any:
    """Returns a scope in which statistics that are assigned under a strategy are the mean over its replicas.

    Networks from before strategies say nothing of that; each replica would then go on with statistics of its own, and
    a checkpoint would have those of the first.
    """
    aggregation = tf.compat.v1.VariableAggregation

    def create(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        unsaid = kwargs.get("aggregation") in (None, aggregation.NONE)
        if tf.distribute.has_strategy() and kwargs.get("trainable") is False and unsaid:
            is_real = tf.as_dtype(kwargs["dtype"]).is_floating if kwargs.get("dtype") is not None else True
            kwargs["aggregation"] = aggregation.MEAN if is_real else aggregation.ONLY_FIRST_REPLICA
        return next_creator(**kwargs)

    return tf.variable_creator_scope(create)


def _set_apart(variables: Sequence[Any]) -> None:
    """Makes variables that the features do not depend on local: with a value, but in no checkpoint."""
    keys = tf.compat.v1.GraphKeys
    step = tf.compat.v1.train.get_global_step()
    ours = {id(variable) for variable in variables if variable is not step}
    graph = tf.compat.v1.get_default_graph()
    for key in (keys.GLOBAL_VARIABLES, keys.TRAINABLE_VARIABLES, keys.MODEL_VARIABLES):
        collection = graph.get_collection_ref(key)
        collection[:] = [variable for variable in collection if id(variable) not in ours]
    known = {id(variable) for variable in graph.get_collection(keys.LOCAL_VARIABLES)}
    for variable in variables:
        if id(variable) in ours - known:
            graph.add_to_collection(keys.LOCAL_VARIABLES, variable)


def _keep_updates(added: Sequence[Any], kept: Sequence[Any]) -> None:
    """Takes what a call added to UPDATE_OPS out again, but for what is to run."""
    gone = {id(update) for update in added} - {id(update) for update in kept}
    collection = tf.compat.v1.get_default_graph().get_collection_ref(tf.compat.v1.GraphKeys.UPDATE_OPS)
    collection[:] = [update for update in collection if id(update) not in gone]


def _losses(called: Called, variables: Mapping[str, Any]) -> list[tuple[str | None, Any]]:
    """Returns the regularization losses of a call, in each replica of a strategy alike.

    What `get_variable` and the layers of TensorFlow 1 put into the collection is there in the first replica only, so
    their regularizers are applied here.
    """
    names = {id(variable): name for name, variable in variables.items()}
    own: list[tuple[str | None, Any]] = [
        (names[id(v)], regularizer(v)) for v, regularizer in called.made.regularizers if id(v) in names
    ]
    own += regularization_losses(called.made.layers, names)
    applied = {name for name, _ in own}
    owners = {**_owners({_name(v): v for v in called.made.variables}), **_owners(variables)}
    for loss in called.losses:
        used = used_variables([loss], owners)
        if used - applied and used & variables.keys():
            own.append((next(iter(used)) if len(used) == 1 else None, loss))
    return [(name, tf.cast(loss, tf.float32)) for name, loss in own if loss is not None]
