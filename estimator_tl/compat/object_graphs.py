"""Names in object-based checkpoints, as tf.train.Checkpoint, Keras and SavedModels write them."""

from __future__ import annotations

from collections import Counter
from typing import Any

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def variable_keys(reader: Any) -> dict[str, str]:
    """Returns the key of each variable in an object-based checkpoint, by its names.

    A variable has the name that it had in the program that wrote it, where no other one there had it too, and the
    path of attributes by which the checkpoint reaches it.

    Args:
      reader: from `tf.train.load_checkpoint`.
    """
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor(GRAPH_KEY))
    attributes = {a.checkpoint_key: a.full_name for node in graph.nodes for a in node.attributes}
    variables = {key: name for key, name in attributes.items() if key.endswith(_SUFFIX)}
    count = Counter(variables.values())
    names = {name: key for key, name in variables.items() if name and count[name] == 1}
    for key in variables:
        names.setdefault(key.removesuffix(_SUFFIX), key)
    return names
