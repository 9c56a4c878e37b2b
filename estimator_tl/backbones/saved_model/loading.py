"""Describes SavedModels from their files, and loads them into graphs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from estimator_tl.backbones.saved_model import interface
from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError, first_line
from estimator_tl.tf_internals.eager import run_eagerly_in_thread
from estimator_tl.tf_internals.files.object_graphs import keys_by_number
from estimator_tl.tf_internals.files.saved_models import missing_operations, read_saved_model
from estimator_tl.tf_internals.graphs import text_ops
from estimator_tl.tf_internals.graphs.replicas import listing_strategy_variables
from estimator_tl.types import Strategy, Variable


def describe(path: str) -> interface.Interface:
    """Returns the interface of a SavedModel, read from its file, or by loading it if TensorFlow 1 saved it.

    Args:
      path: the folder that holds saved_model.pb.

    Raises:
      UserError: the model is damaged, holds several graphs, or needs operations that TensorFlow lacks.
    """
    saved = read_saved_model(path)
    graphs = list(saved.meta_graphs) if saved is not None else []
    if len(graphs) > 1:
        tags = "; ".join(", ".join(graph.meta_info_def.tags) or "no tags" for graph in graphs)
        raise UserError(
            f"{SOURCE} holds {len(graphs)} graphs ({tags}), and one is expected; export it again with one of them."
        )
    if len(graphs) != 1 or not graphs[0].object_graph_def.nodes:  # TensorFlow 1 saved no objects
        loaded = run_eagerly_in_thread(lambda: interface.of_model(load_eagerly(path)))
        return interface.with_effects(loaded, graphs[0]) if graphs else loaded
    with loading_errors():
        missing = missing_operations(graphs[0])
        if missing and text_ops.load_text_operations():
            missing = missing_operations(graphs[0])
        if missing:
            raise _missing(missing[0])
        prefix = os.path.join(path, "variables", "variables")
        description = interface.of_file(graphs[0], functools.partial(_value, prefix, graphs[0].object_graph_def))
        if any(node.HasField("variable") for node in graphs[0].object_graph_def.nodes):
            _check_values(prefix)
    return description


def _value(prefix: str, objects: Any, number: int) -> Any:
    """Returns the value of a variable in a SavedModel, by the number of its object."""
    reader = tf.train.load_checkpoint(prefix)
    return reader.get_tensor(keys_by_number(objects, reader)[number])


def _check_values(prefix: str) -> None:
    """Checks by the sizes of a checkpoint's files that they are complete, without reading them.

    Raises:
      OSError: a part of the checkpoint is missing.
    """
    reader = tf.train.load_checkpoint(prefix)
    sizes = reader.get_variable_to_shape_map()
    types = reader.get_variable_to_dtype_map()
    expected = sum(types[name].size * int(np.prod(shape)) for name, shape in sizes.items() if types[name].is_numeric)
    size = sum(os.path.getsize(shard) for shard in glob.glob(f"{glob.escape(prefix)}.data-*"))
    if size < expected:
        raise OSError(f"{prefix}.data-* hold {size} bytes, of {expected} that {prefix}.index lists")


@contextlib.contextmanager
def loading_errors() -> Iterator[None]:
    """A block in which the errors of a SavedModel that does not load become a UserError of one line.

    Raises:
      UserError: the model does not load.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
        if text_ops.is_missing_operation(error):
            raise _missing(text_ops.missing_operation(error)) from error
        raise UserError(
            f"{SOURCE} is not a loadable SavedModel ({first_line(error)}); check or re-export it."
        ) from error


def _missing(operation: str) -> UserError:
    return UserError(
        f"{SOURCE} needs the operation {operation}, which this TensorFlow lacks; for models with tokenizers inside "
        f"{text_ops.text_remedy()}, for others import the package that has it by --import_modules."
    )


def load_eagerly(path: str) -> Any:
    """Loads a SavedModel eagerly, to inspect it.

    Args:
      path: the folder that holds saved_model.pb.

    Raises:
      UserError: the model does not load.
    """
    with loading_errors():
        return _load(path)


def _load(path: str) -> Any:
    """Loads a SavedModel; if it needs the operations of tensorflow-text and they are installed, loads them first."""
    try:
        return tf.saved_model.load(path)
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        if not text_ops.is_missing_operation(error) or not text_ops.load_text_operations():
            raise
    return tf.saved_model.load(path)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A SavedModel in the current graph.

    Attributes:
      model: the object that TensorFlow loads.
      variables: the global variables that it added, in all replicas.
    """

    model: Any
    variables: list[Variable]

    def keep_only(self, read: Iterable[Any]) -> None:
        """Removes the model's variables that nothing reads from the graph's collections.

        So sessions and checkpoints do not see them. A compiled model has variables of its metrics and its optimizer.
        Their names (``count``, ``total_1``) depend on what else is in a graph, so another graph would look for other
        names in the same checkpoint. They cannot become local variables: their initializers read the model's folder,
        and an export must work without that folder.

        Args:
          read: the variables that the features depend on.
        """
        needed = {id(copy) for v in read for copy in (v, *(getattr(v, "values", None) or ()))}
        unread = {id(variable) for variable in self.variables} - needed
        keys = tf.compat.v1.GraphKeys
        for key in (keys.GLOBAL_VARIABLES, keys.TRAINABLE_VARIABLES, keys.MODEL_VARIABLES):
            collection = tf.compat.v1.get_collection_ref(key)
            collection[:] = [variable for variable in collection if id(variable) not in unread]


def load_in_graph(path: str) -> Loaded:
    """Loads a SavedModel into the current graph, once for all replicas, so that they share its variables.

    Args:
      path: the folder that holds saved_model.pb.

    Raises:
      UserError: the model does not load.
    """

    def load() -> Loaded:
        before = {id(variable) for variable in tf.compat.v1.global_variables()}
        with loading_errors():
            model = tf.saved_model.load(path)
        return Loaded(model, [v for v in tf.compat.v1.global_variables() if id(v) not in before])

    def load_for_all(strategy: Strategy) -> Loaded:
        del strategy
        with listing_strategy_variables():
            return load()

    if not tf.distribute.has_strategy():
        return load()
    loaded: Loaded = tf.distribute.get_replica_context().merge_call(load_for_all)
    return loaded
