"""Names in object-based checkpoints, as tf.train.Checkpoint, Keras and SavedModels write them."""

from __future__ import annotations

from collections import Counter
from typing import Any

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def variable_keys(reader: Any) -> dict[str, str]:
    """Returns the key of each variable in an object-based checkpoint, by name.

    A variable has two names. The first is its name in the program that wrote the checkpoint, if no other variable there
    has the same name. The second is the path of attributes through which the checkpoint reaches the variable.

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


def keys_by_number(saved: Any, reader: Any) -> dict[int, str]:
    """Returns the checkpoint key of each variable of a SavedModel, by its number among the saved objects.

    Both files hold a graph of the same objects, with the same names of attributes.

    Args:
      saved: the SavedObjectGraph of the model.
      reader: from `tf.train.load_checkpoint`, for the variables of the model.
    """
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor(GRAPH_KEY))
    keys: dict[int, str] = {}
    pending, seen = [(0, 0)], {0}
    while pending:
        number, node = pending.pop()
        for attribute in graph.nodes[node].attributes:
            if attribute.checkpoint_key.endswith(_SUFFIX):
                keys[number] = attribute.checkpoint_key
        children = {child.local_name: child.node_id for child in graph.nodes[node].children}
        for child in saved.nodes[number].children:
            if child.local_name in children and child.node_id not in seen:
                seen.add(child.node_id)
                pending.append((child.node_id, children[child.local_name]))
    return keys
