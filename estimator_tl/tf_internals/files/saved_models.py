"""What a SavedModel file says without being loaded; its classes and its coder are TensorFlow's own, and private."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any


def read_saved_model(path: str) -> Any:
    """Returns the SavedModel message of a folder; None where the model is kept as text, or is damaged.

    Args:
      path: the folder that holds saved_model.pb.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        with open(os.path.join(path, "saved_model.pb"), "rb") as stream:
            return saved_model_pb2.SavedModel.FromString(stream.read())
    except (OSError, DecodeError):
        return None  # whoever loads it says so


def operations(path: str) -> Iterator[Any]:
    """Yields the node of every operation in a SavedModel, those inside its functions too.

    Args:
      path: the folder that holds saved_model.pb; yields nothing where that cannot be read.
    """
    model = read_saved_model(path)
    for meta_graph in model.meta_graphs if model is not None else ():
        yield from meta_graph.graph_def.node
        for function in meta_graph.graph_def.library.function:
            yield from function.node_def


def decode_structure(value: Any) -> Any:
    """Returns the nested structure of specs and plain values that a StructuredValue message holds."""
    from tensorflow.python.saved_model import nested_structure_coder

    return nested_structure_coder.decode_proto(value)


def missing_operations(meta_graph: Any) -> list[str]:
    """Returns the operations of a MetaGraphDef that are not registered in this process, sorted."""
    from tensorflow.python.framework import op_def_registry

    library = meta_graph.graph_def.library
    used = {node.op for node in meta_graph.graph_def.node}
    used |= {node.op for function in library.function for node in function.node_def}
    used -= {function.signature.name for function in library.function}
    used -= {gradient.registered_op_type for gradient in library.registered_gradients}
    return sorted(op for op in used if op_def_registry.get(op) is None)
