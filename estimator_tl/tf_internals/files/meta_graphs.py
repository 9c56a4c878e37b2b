"""The files of TF1 SavedModels as protocol buffers, whose classes TensorFlow keeps private."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.errors import SOURCE, UserError
from estimator_tl.types import MetaGraphDef, Tensor

# The format in Hub's ModuleDef. Its second field lists features that a reader must know; it is empty in all modules.
_FORMAT_V3 = 3


@dataclasses.dataclass(frozen=True)
class ListedVariable:
    """A variable as a meta graph's collection lists it.

    Attributes:
      name: name of the variable's op.
      key: name in the checkpoint; all parts of a partitioned variable have the same key.
      part: (offset, size) of this part in each dimension of the value in the checkpoint; None for a whole variable.
    """

    name: str
    key: str
    part: tuple[tuple[int, int], ...] | None


def read_meta_graphs(folder: str) -> dict[frozenset[str], Any]:
    """Returns the MetaGraphDefs of a SavedModel folder, by tags.

    Args:
      folder: the folder that contains saved_model.pb.

    Raises:
      UserError: the file is missing or damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = os.path.join(folder, "saved_model.pb")
    try:
        with open(os.path.join(folder, "tfhub_module.pb"), "rb") as stream:
            module_format = list(_fields(stream.read()))
        if module_format != [(1, _FORMAT_V3)]:
            raise UserError(f"{SOURCE} has a format that Hub never released ({module_format}); export it again.")
        with open(path, "rb") as stream:
            saved = saved_model_pb2.SavedModel.FromString(stream.read())
    except (OSError, DecodeError) as error:
        raise UserError(f"{SOURCE} is not a readable TF1 Hub module: {path}: {error}; get it again.") from error
    return {frozenset(graph.meta_info_def.tags): graph for graph in saved.meta_graphs}


def listed_variables(meta_graph: MetaGraphDef, collection: str) -> list[ListedVariable]:
    """Returns the variables of a collection, in its order."""
    from tensorflow.core.framework import variable_pb2

    variables = []
    for value in meta_graph.collection_def[collection].bytes_list.value:
        definition = variable_pb2.VariableDef.FromString(value)
        name = definition.variable_name.partition(":")[0]
        if definition.HasField("save_slice_info_def"):
            part = definition.save_slice_info_def
            variables.append(ListedVariable(name, part.full_name, tuple(zip(part.var_offset, part.var_shape))))
        else:
            variables.append(ListedVariable(name, name, None))
    return variables


def listed_nodes(meta_graph: MetaGraphDef, collection: str) -> list[str]:
    """Returns the names of the ops or tensors of a collection, in its order."""
    return list(meta_graph.collection_def[collection].node_list.value)


def asset_files(meta_graph: MetaGraphDef, folder: str) -> dict[str, str]:
    """Returns the path of each asset of a meta graph, by the name of the tensor that takes the path."""
    from tensorflow.core.protobuf import meta_graph_pb2

    assets = list(meta_graph.asset_file_def)
    for packed in meta_graph.collection_def[
        "saved_model_assets"
    ].any_list.value:  # Hub and old TensorFlow put them here
        asset = meta_graph_pb2.AssetFileDef()
        packed.Unpack(asset)
        assets.append(asset)
    return {asset.tensor_info.name: os.path.join(folder, "assets", asset.filename) for asset in assets}


def static_shape(info: Any) -> tuple[int | None, ...] | None:
    """Returns the shape in a TensorInfo; None if the rank is unknown."""
    if info.tensor_shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)


def dtype_name(enum: int) -> str:
    """Returns the name of a DataType, e.g. ``float32``."""
    name: str = load_tensorflow().as_dtype(enum).base_dtype.name
    return name


def in_current_graph(tensor: Tensor) -> Any:
    """Returns a tensor for use in the current graph: inside a function or a loop, the graph has to capture it."""
    graph = load_tensorflow().compat.v1.get_default_graph()
    if tensor.graph is graph or not hasattr(graph, "capture"):
        return tensor
    return graph.capture(tensor)


def attached_image_size(meta_graph: MetaGraphDef) -> tuple[int, int] | None:
    """Returns (height, width) from the ImageModuleInfo that Hub attached to a module; None if there is no attachment.

    tensorflow_hub no longer has the message classes. The messages are ModuleAttachment {1: key, 2: value}, with the
    value ImageModuleInfo {1: {1: height, 2: width}}.
    """
    for attachment in meta_graph.collection_def["hub_module_attachments"].bytes_list.value:
        fields = dict(_fields(attachment))
        if fields.get(1) == b"image_module_info":
            size = dict(_fields(dict(_fields(fields.get(2, b""))).get(1, b"")))
            if size.get(1) and size.get(2):
                return size[1], size[2]
    return None


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (number, value) of each field of a serialized message; stops at a fixed-width field (Hub writes none)."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while position < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        elif tag & 7 == 2:
            size = varint()
            yield tag >> 3, message[position : position + size]
            position += size
        else:
            return
