"""What a SavedModel file says without being loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any


def operations(path: str) -> Iterator[Any]:
    """Yields the node of every operation in a SavedModel, those inside its functions too.

    Args:
      path: the folder that holds saved_model.pb; yields nothing where the model is kept as text, or is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    file = os.path.join(path, "saved_model.pb")
    if not os.path.isfile(file):
        return
    try:
        with open(file, "rb") as stream:
            model = saved_model_pb2.SavedModel.FromString(stream.read())
    except DecodeError:
        return  # whoever loads it says so
    for meta_graph in model.meta_graphs:
        yield from meta_graph.graph_def.node
        for function in meta_graph.graph_def.library.function:
            yield from function.node_def
