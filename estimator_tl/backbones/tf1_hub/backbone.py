"""Modules in the TF1 format of TensorFlow Hub: a graph for inference, a graph for training, one set of variables.

Inference mode uses the graph for inference, whichever variables are trained. Only batch norm in training mode, or
dropout, needs the graph for training, with its update ops. `get_variable` makes the variables and the graph is imported
on top of them, so that strategies can mirror them.
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
from estimator_tl.types import Tensor, Variable

#: The file that only modules in this format have.
FORMAT_FILE = "tfhub_module.pb"
_WRITE_REMEDY = "use another of its signatures or outputs, or export it again for inference"
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
          image_size: pixels, where the module does not fix them; by default, the size that it was trained with.
          input_range: values that the module takes; by default, the range that follows from its graph, or else
            [0, 1] by Hub's convention.
          pooling: for outputs with height and width, or with tokens: avg, max, flatten or none.
          signature: by default ``image_feature_vector`` if the module has it, else ``default``.
          output_key: which output of the signature; ``default`` by default.
          features: an output of the signature, or several.
          allow_unsafe_deserialization: load modules that read or write files, too.

        Raises:
          UserError: the folder does not hold a module that takes images or text.
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
            self.draws = check_inference(self.handle, self._inference.effects(), _WRITE_REMEDY)
            self._train = ModuleGraph(graphs[_TRAIN], signature, names) if _TRAIN in graphs else None
            self.is_random = self._train is not None and self._train.is_random
            graph_of = self._used_variables()
            self._entries = self._checkpoint_entries(graph_of)
            self.structure = self._read_structure(graph_of)
            image_input.check_batch(self._inference.batch_size, can_map=False)
            shape, dtype = self._inference.input_shape, self._inference.input_type
            if shape is not None:
                image_input.check_layout(shape, "export it again with its channels last")
                if None in shape[1:3]:
                    image_size = image_size or meta_graphs.attached_image_size(graphs[_INFERENCE])
            self.input_spec, self.finding = read_input(shape, dtype, self._input_graph, image_size, input_range)
            self.output_shape = self._shape_before_pooling()

    def _input_graph(self) -> InputGraph:
        graph = self._inference
        values = {name: functools.partial(self._value, name) for name in self._entries}
        return InputGraph(FlatGraph(graph.meta.graph_def), graph.input, graph.outputs, values, dtype=graph.input_type)

    @property
    def _training_graph(self) -> ModuleGraph:
        """The graph that lists the trainable variables and the regularization losses."""
        return self._train or self._inference

    def _used_variables(self) -> dict[str, ModuleGraph]:
        """Returns the graph of each variable that the output depends on, or that its update ops write to, by name."""
        names: dict[str, ModuleGraph] = {}
        for graph in dict.fromkeys((self._inference, self._training_graph)):
            variables = graph.variables(graph.ancestors(graph.outputs))
            variables += graph.variables(graph.ancestors(graph.updates({*names, *variables})))
            names.update({name: graph for name in variables if name not in names})
        if not names:
            raise UserError(f"{SOURCE} has no variables, so there is nothing to transfer; use a trained module.")
        return names

    def _read_structure(self, graph_of: Mapping[str, ModuleGraph]) -> SourceStructure:
        trainable = self._trainable(graph_of)
        shapes = self._reader().get_variable_to_shape_map()
        missing = [entry.key for entry in self._entries.values() if entry.key not in shapes]
        if missing:
            raise UserError(f"{SOURCE} lacks the values of {len(missing)} variables ({missing[0]}); get it again.")
        variables = []
        for name, graph in graph_of.items():
            entry = self._entries[name]
            shape = tuple(size for _, size in entry.part) if entry.part else tuple(shapes[entry.key])
            dtype = graph.dtype(name)
            is_trainable = name in trainable and tf.as_dtype(dtype).is_floating
            variables.append(SourceVariable(name, shape, dtype, is_trainable))
        reason = "" if self._train else "was saved for inference, without a training switch"
        return SourceStructure(self.handle, tuple(variables), one_training_switch=True, inference_only=reason)

    def _trainable(self, names: Iterable[str]) -> set[str]:
        """Returns which variables gradients can reach, and says in `kind` if the module lists more as trainable."""
        trainable = self._training_graph.trainable_names() & set(names)
        reachable = trainable & self._inference.differentiable() & self._training_graph.differentiable()
        if len(reachable) < len(trainable):
            count = len(trainable - reachable)
            self.kind = f"{self.kind}; gradients do not reach {count} of its variables (while loops)"
        return reachable

    def _checkpoint_entries(self, names: Iterable[str]) -> dict[str, meta_graphs.ListedVariable]:
        """Returns the checkpoint's entry for each variable."""
        graphs = dict.fromkeys((self._inference, self._training_graph))
        entries = {v.name: v for graph in graphs for v in meta_graphs.listed_variables(graph.meta, "variables")}
        return {name: entries.get(name, meta_graphs.ListedVariable(name, name, None)) for name in names}

    def _reader(self) -> Any:
        try:
            return tf.train.load_checkpoint(os.path.join(self.path, "variables", "variables"))
        except (ValueError, OSError, tf.errors.OpError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"{self.handle}: its variables cannot be read ({first_line(error)}); get it again.")

    def _shape_before_pooling(self) -> tuple[int | None, ...] | None:
        """Returns the shape of the features before pooling; builds a graph for it, which also checks that it builds."""
        with tf.Graph().as_default():
            inputs = tf.compat.v1.placeholder(tf.string, [None])
            if isinstance(self.input_spec, ImageSpec):
                inputs = tf.compat.v1.placeholder(tf.float32, [None, *self.input_spec.shape])
            outputs = self._import(self._inference, inputs, self._variables(), self._inference.outputs)
            _set_shapes(outputs, self._inference)
            for output in outputs:
                check_floating(output.dtype)
            return self.joined_shape([output.shape for output in outputs])

    def digest(self) -> str:
        return folder_digest(self.path)

    def values(self) -> Mapping[str, Any]:
        reader = self._reader()
        try:
            return {name: self._value(name, reader) for name in self._entries}
        except (ValueError, IndexError, OSError, tf.errors.OpError) as error:
            raise self._unreadable(error) from error

    def _value(self, name: str, reader: Any = None) -> Any:
        entry = self._entries[name]
        return _part((reader or self._reader()).get_tensor(entry.key), entry.part)

    def build(self, inputs: Tensor, mode: CallMode) -> BuiltBackbone:
        inputs = check_input(self.handle, inputs, self.input_spec)
        graph = self._inference
        updates: list[str] = []
        if mode.training:
            graph = self._training_graph
            updates = graph.updates(self._entries)
        variables = self._variables(set().union(*graph.written([*graph.outputs, *updates]).values()))
        losses = [loss for loss in self._training_graph.losses() if self._includes_loss(loss, graph)]
        same_graph_losses = losses if graph is self._training_graph else []
        results = self._import(graph, inputs, variables, [*graph.outputs, *updates, *same_graph_losses])
        features, others = results[: len(graph.outputs)], results[len(graph.outputs) :]
        _set_shapes(features, graph)
        loss_tensors = others[len(updates) :]
        if not same_graph_losses:
            loss_tensors = self._import(self._training_graph, inputs, variables, losses)
        return BuiltBackbone(
            features=self.pool(features),
            variables=variables,
            updates=others[: len(updates)],
            regularization_losses=[
                (self._owner(loss), tf.cast(tensor, tf.float32)) for loss, tensor in zip(losses, loss_tensors)
            ],
            initial_values=self.values,
        )

    def _includes_loss(self, loss: str, graph: ModuleGraph) -> bool:
        """Returns whether a loss of the graph for training belongs to a model whose features come from `graph`.

        It does not belong if it has variables that the output does not depend on, or if it depends on the input while
        the features come from the graph for inference.
        """
        if not self._training_graph.variables_of(loss) <= set(self._entries):
            return False
        return graph is self._training_graph or not self._training_graph.needs_input(loss)

    def _owner(self, loss: str) -> str | None:
        owners = self._training_graph.variables_of(loss)
        return owners.pop() if len(owners) == 1 else None

    def _variables(self, written: Iterable[str] = ()) -> dict[str, Any]:
        """Makes the variables in the current graph; in the further replicas of a strategy, returns the existing ones.

        Args:
          written: names of the variables that the graph itself writes to. Each replica has its own value of them, and
            a checkpoint has the mean.
        """
        written = frozenset(written)
        variables = {}
        for variable in self.structure.variables:
            dtype = tf.as_dtype(variable.dtype)
            settings = {}
            if variable.name in written:
                aggregation = tf.VariableAggregation
                settings["synchronization"] = tf.VariableSynchronization.ON_READ
                settings["aggregation"] = aggregation.MEAN if dtype.is_floating else aggregation.ONLY_FIRST_REPLICA
            variables[variable.name] = tf.compat.v1.get_variable(
                variable.name,
                variable.shape,
                dtype,
                initializer=tf.compat.v1.zeros_initializer(),
                trainable=variable.trainable,
                use_resource=True,
                **settings,
            )
        return variables

    def _import(
        self, graph: ModuleGraph, inputs: Tensor, variables: Mapping[str, Variable], fetches: Sequence[str]
    ) -> list[Any]:
        """Imports all nodes that the fetches need, with their tables and the files of the tables."""
        inputs = image_input.cast(inputs, graph.input_type)
        nodes = graph.ancestors(fetches)
        tables = graph.table_initializers(nodes)
        nodes = graph.ancestors([*fetches, *tables])
        files = meta_graphs.asset_files(graph.meta, self.path)
        paths = {name: tf.constant(path) for name, path in files.items() if node_of(name) in nodes}
        graph_variables = {name: variables[name] for name in graph.variables(nodes)}
        replacements = {graph.input: inputs, **paths}
        try:
            results = import_nodes(graph.meta, nodes, graph_variables, replacements, [*fetches, *tables])
        except NotImportableError as error:
            raise UserError(f"{self.handle} cannot be built here: {error}; export it again, or use another.") from error
        keys = tf.compat.v1.GraphKeys
        for key, ops in ((keys.TABLE_INITIALIZERS, results[len(fetches) :]), (keys.ASSET_FILEPATHS, paths.values())):
            for op in ops:
                tf.compat.v1.add_to_collection(key, op)
        return results[: len(fetches)]


def _part(value: Any, part: Sequence[tuple[int, int]] | None) -> Any:
    """Returns the slice of a value that starts at an offset and has a size in each dimension; None for the whole."""
    if part is None:
        return value
    return value[tuple(slice(first, first + size) for first, size in part)]


def _set_shapes(outputs: Sequence[Any], graph: ModuleGraph) -> None:
    """Gives outputs the static shapes of the signature, which an imported while loop loses."""
    for output, shape in zip(outputs, graph.output_shapes):
        if shape is not None:
            output.set_shape(shape)
