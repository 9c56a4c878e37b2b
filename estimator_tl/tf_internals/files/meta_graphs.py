"""The files of TF1 SavedModels as protocol buffers, whose classes TensorFlow keeps private."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.errors import SOURCE, UserError

_FORMAT_V3 = 3  # of Hub's ModuleDef, whose second field, features that a reader must know, is empty in all modules


@dataclasses.dataclass(frozen=True)
class ListedVariable:
    """A variable as a meta graph's collection lists it.

    Attributes:
      name: of its op.
      key: its name in the checkpoint; parts of a partitioned variable share one.
      part: (offset, size) in each dimension of what the checkpoint holds; None for a whole variable.
    """

    name: str
    key: str
    part: tuple[tuple[int, int], ...] | None


def read_meta_graphs(folder: str) -> dict[frozenset[str], Any]:
    """Returns the MetaGraphDefs of a SavedModel folder by their tags.

    Args:
      folder: holds saved_model.pb.

    Raises:
      UserError: the file is missing or damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = os.path.join(folder, "saved_model.pb")
    try:
        with open(os.path.join(folder, "tfhub_module.pb"), "rb") as stream:
            form = list(_fields(stream.read()))
        if form != [(1, _FORMAT_V3)]:
            raise UserError(f"{SOURCE} has a form that Hub never released ({form}); export it anew.")
        with open(path, "rb") as stream:
            saved = saved_model_pb2.SavedModel.FromString(stream.read())
    except (OSError, DecodeError) as error:
        raise UserError(f"{SOURCE} is not a readable TF1 Hub module: {path}: {error}; get it again.") from error
    return {frozenset(graph.meta_info_def.tags): graph for graph in saved.meta_graphs}


def listed_variables(meta_graph: Any, collection: str) -> list[ListedVariable]:
    """Returns the variables of a collection, in its order."""
    from tensorflow.core.framework import variable_pb2

    found = []
    for value in meta_graph.collection_def[collection].bytes_list.value:
        listed = variable_pb2.VariableDef.FromString(value)
        name = listed.variable_name.partition(":")[0]
        if listed.HasField("save_slice_info_def"):
            part = listed.save_slice_info_def
            found.append(ListedVariable(name, part.full_name, tuple(zip(part.var_offset, part.var_shape))))
        else:
            found.append(ListedVariable(name, name, None))
    return found


def listed_nodes(meta_graph: Any, collection: str) -> list[str]:
    """Returns the names of the ops or tensors of a collection, in its order."""
    return list(meta_graph.collection_def[collection].node_list.value)


def asset_files(meta_graph: Any, folder: str) -> dict[str, str]:
    """Returns the paths of a meta graph's assets by the name of the tensor that takes the path."""
    from tensorflow.core.protobuf import meta_graph_pb2

    assets = list(meta_graph.asset_file_def)
    for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:  # where Hub and old TensorFlow put it
        asset = meta_graph_pb2.AssetFileDef()
        packed.Unpack(asset)
        assets.append(asset)
    return {asset.tensor_info.name: os.path.join(folder, "assets", asset.filename) for asset in assets}


def static_shape(info: Any) -> tuple[int | None, ...] | None:
    """Returns the shape that a TensorInfo tells; None where the rank is unknown."""
    if info.tensor_shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)


def dtype_name(enum: int) -> str:
    """Returns the name of a DataType, e.g. ``float32``."""
    name: str = load_tensorflow().as_dtype(enum).base_dtype.name
    return name


def in_current_graph(tensor: Any) -> Any:
    """Returns a tensor as graphs inside of functions and loops know it, where the current graph is one of these."""
    graph = load_tensorflow().compat.v1.get_default_graph()
    return tensor if tensor.graph is graph or not hasattr(graph, "capture") else graph.capture(tensor)


def attached_image_size(meta_graph: Any) -> tuple[int, int] | None:
    """Returns (height, width) of the ImageModuleInfo that Hub attached to a module; None where there is none.

    tensorflow_hub no longer has the message classes. They are ModuleAttachment {1: key, 2: value}, with the value
    ImageModuleInfo {1: {1: height, 2: width}}.
    """
    for attachment in meta_graph.collection_def["hub_module_attachments"].bytes_list.value:
        fields = dict(_fields(attachment))
        if fields.get(1) == b"image_module_info":
            size = dict(_fields(dict(_fields(fields.get(2, b""))).get(1, b"")))
            if size.get(1) and size.get(2):
                return size[1], size[2]
    return None


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (number, value) of a serialized message's fields; those of fixed width do not occur here."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while place < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        elif tag & 7 == 2:
            size = varint()
            yield tag >> 3, message[place : place + size]
            place += size
        else:
            return
