"""Reads a SavedModel file without loading the model, by private classes and a private coder of TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from estimator_tl.types import MetaGraphDef


def read_saved_model(path: str) -> Any:
    """Returns the SavedModel message of a folder; None if the model is stored as text or is damaged.

    Args:
      path: the folder that contains saved_model.pb.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        with open(os.path.join(path, "saved_model.pb"), "rb") as stream:
            return saved_model_pb2.SavedModel.FromString(stream.read())
    except (OSError, DecodeError):
        return None  # loading the model then reports the problem


def operations(path: str) -> Iterator[Any]:
    """Yields the node of every operation in a SavedModel, also inside its functions.

    Args:
      path: the folder that contains saved_model.pb; yields nothing if the file is not readable.
    """
    model = read_saved_model(path)
    if model is None:
        return
    for meta_graph in model.meta_graphs:
        yield from meta_graph.graph_def.node
        for function in meta_graph.graph_def.library.function:
            yield from function.node_def


def decode_structure(value: Any) -> Any:
    """Returns the nested structure of specs and plain values in a StructuredValue message."""
    from tensorflow.python.saved_model import nested_structure_coder

    return nested_structure_coder.decode_proto(value)


def missing_operations(meta_graph: MetaGraphDef) -> list[str]:
    """Returns the operations of a MetaGraphDef that are not registered in this process, sorted."""
    from tensorflow.python.framework import op_def_registry

    library = meta_graph.graph_def.library
    op_names = {node.op for node in meta_graph.graph_def.node}
    op_names |= {node.op for function in library.function for node in function.node_def}
    op_names -= {function.signature.name for function in library.function}
    op_names -= {gradient.registered_op_type for gradient in library.registered_gradients}
    return sorted(op for op in op_names if op_def_registry.get(op) is None)
