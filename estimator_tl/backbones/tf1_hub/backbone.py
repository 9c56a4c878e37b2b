"""Modules in the TF1 format of TensorFlow Hub: a graph for inference, another one for training, one set of variables.

A graph that is called in inference mode is the first of them, whatever trains in it; only batch norm in training mode,
or dropout, takes the second with its update ops. The variables are made by `get_variable` and the graph is imported on
them, so that strategies can mirror them.
https://www.tensorflow.org/hub/tf1_hub_module
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from estimator_tl.backbones.base import Backbone, BuiltBackbone, check_floating, feature_names
from estimator_tl.backbones.digest import folder_digest
from estimator_tl.backbones.effects import check_inference
from estimator_tl.backbones.fetching.handles import Module, module_of
from estimator_tl.backbones.input import images as image_input
from estimator_tl.backbones.input.contract import check_input, read_input
from estimator_tl.backbones.input.graph import InputGraph
from estimator_tl.backbones.safety import check_saved_model
from estimator_tl.backbones.tf1_hub.graph import ModuleGraph
from estimator_tl.backbones.tf1_hub.importing import NotImportableError, import_nodes, node_of
from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError, about, check_known, first_line
from estimator_tl.specs import POOLINGS, ImageSpec
from estimator_tl.structure import CallMode, SourceStructure, SourceVariable
from estimator_tl.tf_internals.files import meta_graphs
from estimator_tl.tf_internals.graphs.flat import FlatGraph

#: The file that tells the format.
MARK = "tfhub_module.pb"
_HARMLESS = "use another of its signatures or outputs, or export it again for inference"
_INFERENCE: frozenset[str] = frozenset()
_TRAIN = frozenset({"train"})


class TF1HubBackbone(Backbone):
    """A TF1 Hub module that maps images or text to features."""

    kind = "TF1 Hub module"

    def __init__(
        self,
        path: str | Module,
        image_size: int | tuple[int, int] | None = None,
        input_range: tuple[float, float] | None = None,
        pooling: str = "avg",
        signature: str | None = None,
        output_key: str | None = None,
        features: str | Sequence[str] | None = None,
        allow_unsafe_deserialization: bool = False,
    ):
        """Reads the module's structure.

        Args:
          path: the folder that holds tfhub_module.pb, an archive of it, or its address; see `handles.resolve`.
          image_size: pixels, where the module does not fix them; what it was trained with by default.
          input_range: values that the module takes; by default, those that follow from what it does to them, or else
            [0, 1] by Hub's convention.
          pooling: for outputs with height and width, or with tokens: avg, max, flatten or none.
          signature: ``image_feature_vector`` by default where there is one, else ``default``.
          output_key: which output of the signature; ``default`` by default.
          features: the same, or several of them.
          allow_unsafe_deserialization: load modules that read or write files, too.

        Raises:
          UserError: the folder is not a module that can be called with images or text.
        """
        module = module_of(path)
        self.handle, self.path = module.handle, module.folder
        self.pooling = check_known("pooling", pooling, POOLINGS)
        with about(self.handle):
            self.unsafe = check_saved_model(self.path, allow_unsafe_deserialization)
            graphs = meta_graphs.read_meta_graphs(self.path)
            if _INFERENCE not in graphs:
                tags = sorted(sorted(tags) for tags in graphs)
                raise UserError(f"{SOURCE} has no graph without tags, only {tags}; export it with one for inference.")
            names = feature_names(features, output_key)
            self._inference = ModuleGraph(graphs[_INFERENCE], signature, names)
            self.outputs = self._inference.known_outputs
            self.draws = check_inference(self.handle, self._inference.effects(), _HARMLESS)
            self._train = ModuleGraph(graphs[_TRAIN], signature, names) if _TRAIN in graphs else None
            self.is_random = self._train is not None and self._train.is_random
            graph_of = self._used_variables()
            self._listed = self._find(graph_of)
            self.structure = self._read_structure(graph_of)
            image_input.check_batch(self._inference.batch_size, can_map=False)
            shape, dtype = self._inference.input_shape, self._inference.input_type
            if shape is not None:
                image_input.check_layout(shape, "export it again with its channels last")
                if None in shape[1:3]:
                    image_size = image_size or meta_graphs.attached_image_size(graphs[_INFERENCE])
            self.input_spec, self.finding = read_input(shape, dtype, self._input_graph, image_size, input_range)
            self.output_shape = self._built_shape()

    def _input_graph(self) -> InputGraph:
        graph = self._inference
        values = {name: functools.partial(self._value, name) for name in self._listed}
        return InputGraph(FlatGraph(graph.meta.graph_def), graph.input, graph.outputs, values, dtype=graph.input_type)

    @property
    def _weighed(self) -> ModuleGraph:
        """The graph that says what trains and what regularizes it."""
        return self._train or self._inference

    def _used_variables(self) -> dict[str, ModuleGraph]:
        """Returns the variables that the output depends on, or that the update ops of those write, and their graph."""
        names: dict[str, ModuleGraph] = {}
        for graph in dict.fromkeys((self._inference, self._weighed)):
            used = graph.variables(graph.ancestors(graph.outputs))
            used += graph.variables(graph.ancestors(graph.updates({*names, *used})))
            names.update({name: graph for name in used if name not in names})
        if not names:
            raise UserError(f"{SOURCE} has no variables, so there is nothing to transfer; use a trained module.")
        return names

    def _read_structure(self, graph_of: Mapping[str, ModuleGraph]) -> SourceStructure:
        trainable = self._trainable(graph_of)
        shapes = self._reader().get_variable_to_shape_map()
        missing = [v.key for v in self._listed.values() if v.key not in shapes]
        if missing:
            raise UserError(f"{SOURCE} lacks the values of {len(missing)} variables ({missing[0]}); get it again.")
        variables = []
        for name, graph in graph_of.items():
            where = self._listed[name]
            shape = tuple(size for _, size in where.part) if where.part else tuple(shapes[where.key])
            dtype = graph.dtype(name)
            moves = name in trainable and tf.as_dtype(dtype).is_floating
            variables.append(SourceVariable(name, shape, dtype, moves))
        reason = "" if self._train else "was saved for inference, without a training switch"
        return SourceStructure(self.handle, tuple(variables), one_training_switch=True, inference_only=reason)

    def _trainable(self, names: Iterable[str]) -> set[str]:
        """Returns which variables gradients can move, and says in `kind` where the module allows for more."""
        allowed = self._weighed.listed_as_trainable() & set(names)
        can = allowed & self._inference.differentiable() & self._weighed.differentiable()
        if len(can) < len(allowed):
            self.kind = f"{self.kind}; gradients do not reach {len(allowed - can)} of its variables (while loops)"
        return can

    def _find(self, names: Iterable[str]) -> dict[str, meta_graphs.ListedVariable]:
        """Returns where the checkpoint has each variable."""
        graphs = dict.fromkeys((self._inference, self._weighed))
        listed = {v.name: v for graph in graphs for v in meta_graphs.listed_variables(graph.meta, "variables")}
        return {name: listed.get(name, meta_graphs.ListedVariable(name, name, None)) for name in names}

    def _reader(self) -> Any:
        try:
            return tf.train.load_checkpoint(os.path.join(self.path, "variables", "variables"))
        except (ValueError, OSError, tf.errors.OpError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"{self.handle}: its variables cannot be read ({first_line(error)}); get it again.")

    def _built_shape(self) -> tuple[int | None, ...] | None:
        """Builds a graph only to see that it can be, and what shape the features have before pooling."""
        with tf.Graph().as_default():
            inputs = tf.compat.v1.placeholder(tf.string, [None])
            if isinstance(self.input_spec, ImageSpec):
                inputs = tf.compat.v1.placeholder(tf.float32, [None, *self.input_spec.shape])
            outputs = self._import(self._inference, inputs, self._variables(), self._inference.outputs)
            _tell_shapes(outputs, self._inference)
            for output in outputs:
                check_floating(output.dtype)
            return self.joined_shape([output.shape for output in outputs])

    def digest(self) -> str:
        return folder_digest(self.path)

    def values(self) -> Mapping[str, Any]:
        reader = self._reader()
        try:
            return {name: self._value(name, reader) for name in self._listed}
        except (ValueError, IndexError, OSError, tf.errors.OpError) as error:
            raise self._unreadable(error) from error

    def _value(self, name: str, reader: Any = None) -> Any:
        where = self._listed[name]
        return _part((reader or self._reader()).get_tensor(where.key), where.part)

    def build(self, inputs: Any, mode: CallMode) -> BuiltBackbone:
        inputs = check_input(self.handle, inputs, self.input_spec)
        graph = self._weighed if mode.training else self._inference
        updates = graph.updates(self._listed) if mode.training else []
        variables = self._variables(set().union(*graph.written([*graph.outputs, *updates]).values()))
        losses = [loss for loss in self._weighed.losses() if self._has_place_for(loss, graph)]
        together = losses if graph is self._weighed else []
        found = self._import(graph, inputs, variables, [*graph.outputs, *updates, *together])
        features, others = found[: len(graph.outputs)], found[len(graph.outputs) :]
        _tell_shapes(features, graph)
        built = others[len(updates) :] if together else self._import(self._weighed, inputs, variables, losses)
        return BuiltBackbone(
            features=self.pool(features),
            variables=variables,
            updates=others[: len(updates)],
            regularization_losses=[
                (self._owner(loss), tf.cast(tensor, tf.float32)) for loss, tensor in zip(losses, built)
            ],
            initial_values=self.values,
        )

    def _has_place_for(self, loss: str, graph: ModuleGraph) -> bool:
        """Whether a loss of the graph for training belongs to a model of which the features come from `graph`.

        One that depends on the input does not where that goes through the other graph, nor one of variables that the
        output does not depend on.
        """
        if not self._weighed.variables_of(loss) <= set(self._listed):
            return False
        return graph is self._weighed or not self._weighed.needs_input(loss)

    def _owner(self, loss: str) -> str | None:
        owners = self._weighed.variables_of(loss)
        return owners.pop() if len(owners) == 1 else None

    def _variables(self, moved: Iterable[str] = ()) -> dict[str, Any]:
        """Makes the variables in the current graph, or finds them, in the further replicas of a strategy.

        Args:
          moved: names of those that the graph itself writes to; each replica then has its own value, and a checkpoint
            their mean.
        """
        own = frozenset(moved)
        made = {}
        for variable in self.structure.variables:
            dtype = tf.as_dtype(variable.dtype)
            by_replica = {
                "synchronization": tf.VariableSynchronization.ON_READ,
                "aggregation": tf.VariableAggregation.MEAN
                if dtype.is_floating
                else tf.VariableAggregation.ONLY_FIRST_REPLICA,
            }
            made[variable.name] = tf.compat.v1.get_variable(
                variable.name,
                variable.shape,
                dtype,
                initializer=tf.compat.v1.zeros_initializer(),
                trainable=variable.trainable,
                use_resource=True,
                **(by_replica if variable.name in own else {}),
            )
        return made

    def _import(
        self, graph: ModuleGraph, inputs: Any, variables: Mapping[str, Any], fetches: Sequence[str]
    ) -> list[Any]:
        """Imports what tensors and ops of the module need, its tables and their files included."""
        inputs = image_input.cast(inputs, graph.input_type)
        needed = graph.ancestors(fetches)
        tables = graph.table_initializers(needed)
        needed = graph.ancestors([*fetches, *tables])
        files = meta_graphs.asset_files(graph.meta, self.path)
        paths = {name: tf.constant(path) for name, path in files.items() if node_of(name) in needed}
        own = {name: variables[name] for name in graph.variables(needed)}
        try:
            found = import_nodes(graph.meta, needed, own, {graph.input: inputs, **paths}, [*fetches, *tables])
        except NotImportableError as error:
            raise UserError(f"{self.handle} cannot be built here: {error}; export it anew, or use another.") from error
        keys = tf.compat.v1.GraphKeys
        for key, ops in ((keys.TABLE_INITIALIZERS, found[len(fetches) :]), (keys.ASSET_FILEPATHS, paths.values())):
            for op in ops:
                tf.compat.v1.add_to_collection(key, op)
        return found[: len(fetches)]


def _part(value: Any, part: Sequence[tuple[int, int]] | None) -> Any:
    """Returns what (offset, size) in each dimension cut out of a value; None for the whole."""
    return value if part is None else value[tuple(slice(first, first + size) for first, size in part)]


def _tell_shapes(outputs: Sequence[Any], graph: ModuleGraph) -> None:
    """Gives outputs the shapes that the signature tells, which an imported while loop does not."""
    for output, shape in zip(outputs, graph.output_shapes):
        if shape is not None:
            output.set_shape(shape)
