"""Imports parts of TF1 graphs into the current graph, on variables that exist there.

`import_meta_graph` and `wrap_function` would make new variables, which a strategy cannot mirror. Here the imported
nodes read and write the variables that the caller passes. Reads and writes of reference variables (``VariableV2``) are
rewritten for resource variables, the only kind that strategies support.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import first_line
from estimator_tl.tf_internals.files.meta_graphs import in_current_graph
from estimator_tl.types import GraphDef, MetaGraphDef, Variable

RESOURCE_VARIABLE = "VarHandleOp"
_REFERENCE_VARIABLES = ("VariableV2", "Variable")
VARIABLES = (RESOURCE_VARIABLE, *_REFERENCE_VARIABLES)
_REFERENCE_WRITES = {
    "Assign": "AssignVariableOp",
    "AssignAdd": "AssignAddVariableOp",
    "AssignSub": "AssignSubVariableOp",
}
#: Ops that write to the variable that is their first input.
WRITES = (*_REFERENCE_WRITES, *_REFERENCE_WRITES.values())
#: Ops that draw random numbers and have the attributes seed and seed2.
RANDOM = re.compile(r"Random\w+|(Parameterized)?TruncatedNormal|Multinomial")
_HANDLE = "estimator_tl_handle"


class NotImportableError(ValueError):
    """This TensorFlow cannot import a graph."""


def node_of(name: str) -> str:
    """Returns the name of the node that an input, a tensor or an op belongs to."""
    return name.lstrip("^").partition(":")[0]


def import_nodes(
    meta_graph: MetaGraphDef,
    names: Iterable[str],
    variables: Mapping[str, Variable],
    replacements: Mapping[str, Any],
    fetches: Sequence[str],
) -> list[Any]:
    """Imports nodes of a meta graph into the current graph.

    Args:
      meta_graph: a MetaGraphDef.
      names: of the nodes.
      variables: resource variables to use for the meta graph's variables, by name.
      replacements: tensors to use in place of tensors of the meta graph, by name.
      fetches: names of tensors and ops.

    Returns:
      The imported tensors and ops that `fetches` names.

    Raises:
      NotImportableError: this TensorFlow does not support one of the nodes.
    """
    graph_def = tf.compat.v1.GraphDef(versions=meta_graph.graph_def.versions, library=meta_graph.graph_def.library)
    remaining = set(names) - {node_of(name) for name in replacements}
    graph_def.node.extend(_on_resources([node for node in meta_graph.graph_def.node if node.name in remaining]))
    _set_seeds(graph_def)
    inputs = {source if ":" in source else f"{source}:0" for node in graph_def.node for source in node.input}
    handles = {f"{name}/{_HANDLE}:0": variable.handle for name, variable in variables.items()}
    input_map = {
        name: in_current_graph(tensor) for name, tensor in {**replacements, **handles}.items() if name in inputs
    }
    try:
        results = tf.graph_util.import_graph_def(
            graph_def,
            input_map=input_map,
            return_elements=list(fetches),
            name="tf1_hub",
            producer_op_list=meta_graph.meta_info_def.stripped_op_list,
        )
    except (ValueError, tf.errors.OpError) as error:
        raise NotImportableError(first_line(error)) from error
    return list(results)


def _on_resources(nodes: Sequence[Any]) -> list[Any]:
    """Returns copies of nodes that read and write resource variables from outside of them."""
    resources = {node.name for node in nodes if node.op == RESOURCE_VARIABLE}
    references = {node.name for node in nodes if node.op in _REFERENCE_VARIABLES}
    present = {node.name for node in nodes} - resources
    written = {node.name for node in nodes if node.op in _REFERENCE_WRITES and node_of(node.input[0]) in references}
    new_inputs = {**{name: f"{name}/{_HANDLE}" for name in resources}, **{name: f"{name}/read" for name in written}}
    result = []
    for node in nodes:
        if node.op == RESOURCE_VARIABLE:
            continue
        copy = type(node)()
        copy.CopyFrom(node)
        copy.device = ""
        for attribute in ("_class", "_output_shapes"):  # colocation with nodes that are not imported; unchecked shapes
            copy.attr.pop(attribute, None)
        if node.name in references:
            result.append(_read(type(node), node.name, node.name, node.attr["dtype"]))
            continue
        copy.input[:] = [
            name if name.startswith("^") else new_inputs.get(node_of(name), name)
            for name in node.input
            if not name.startswith("^") or node_of(name) in present
        ]
        if node.name in written:
            copy.input[0] = f"{node_of(node.input[0])}/{_HANDLE}"
            result.append(_write(copy, _REFERENCE_WRITES[node.op]))
            result.append(
                _read(type(node), f"{node.name}/read", node_of(node.input[0]), node.attr["T"], after=node.name)
            )
        else:
            result.append(copy)
    return result


def _read(node_class: Any, name: str, variable: str, dtype: Any, after: str | None = None) -> Any:
    node = node_class(name=name, op="ReadVariableOp", input=[f"{variable}/{_HANDLE}"])
    node.attr["dtype"].CopyFrom(dtype)
    if after:
        node.input.append(f"^{after}")
    return node


def _write(node: Any, op: str) -> Any:
    node.op = op
    node.attr["dtype"].CopyFrom(node.attr["T"])
    for attribute in ("T", "use_locking", "validate_shape"):
        node.attr.pop(attribute, None)
    return node


def _set_seeds(graph_def: GraphDef) -> None:
    """Derives the seeds of random ops without one from the graph's seed, as TensorFlow does for new ops."""
    graph = tf.compat.v1.get_default_graph()
    if graph.seed is None:
        return
    count = len(graph.get_operations())
    for index, node in enumerate(graph_def.node):
        if RANDOM.fullmatch(node.op) and not node.attr["seed"].i and not node.attr["seed2"].i:
            node.attr["seed"].i, node.attr["seed2"].i = tf.compat.v1.get_seed(count + index)
