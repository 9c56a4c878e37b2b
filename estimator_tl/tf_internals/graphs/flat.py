"""Graphs as flat lists of nodes: function calls are expanded (inlined) at any depth.

A function names its tensors ``node:output:index``, a graph names them ``node:index``. All names here have the form of
graphs. The functions of a loop or condition are expanded beside its node, once each, so that a walk sees their nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from estimator_tl.types import GraphDef

_INSIDE = "-"  # between the name of a call and the names of the nodes inside it
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
#: The parts of node names that come from calls only.
CALLS = frozenset({_INSIDE, *_CALLS})
#: Loops and conditions: the attributes that name their functions, and the number of the first input that is an argument
#: of these functions.
_CONTROL = {
    "If": (("then_branch", "else_branch"), 1),
    "StatelessIf": (("then_branch", "else_branch"), 1),
    "While": (("body",), 0),
    "StatelessWhile": (("body",), 0),
    "Case": (("branches",), 1),
    "StatelessCase": (("branches",), 1),
}
#: Operations whose functions are expanded beside them.
CONTROL_FLOW = frozenset(_CONTROL)
#: The subset that runs exactly one of its functions.
CONDITIONS = CONTROL_FLOW - {"While", "StatelessWhile"}
_DEEPEST = 100  # nested calls; the limit stops the expansion of a recursive function


class FlatGraph:
    """The nodes of a graph, without calls and without control inputs.

    Attributes:
      nodes: NodeDefs by name; `inputs` returns the inputs of each.
      library: FunctionDefs by name; loops and conditions still refer to them.
      versions: the VersionDef of the graph.
    """

    def __init__(self, graph_def: GraphDef):
        """Args: graph_def: the GraphDef whose nodes and library to take."""
        self.nodes: dict[str, Any] = {}
        self.library = {function.signature.name: function for function in graph_def.library.function}
        self.versions = graph_def.versions
        self._inputs: dict[str, list[str]] = {}
        self._inside: dict[str, list[list[str]]] = {}  # the results of each function of a loop or condition
        self._same: dict[str, str] = {}  # from the output of a call or the argument of a function to its actual tensor
        self._add(graph_def.node, "", {}, 0)

    @classmethod
    def of_function(cls, graph_def: GraphDef, name: str) -> tuple[FlatGraph, list[str], list[str]]:
        """Returns the graph of one function of a library, the names of its argument tensors and of its results."""
        flat = cls(type(graph_def)(library=graph_def.library, versions=graph_def.versions))
        arguments = [argument.name for argument in flat.library[name].signature.input_arg]
        results = flat._add_function(name, "", [f"{argument}:0" for argument in arguments], 0)
        return flat, [f"{argument}:0" for argument in arguments], [flat.tensor(result) for result in results]

    def tensor(self, name: str) -> str:
        """Returns the name of the actual tensor behind a name, which may be the output of an expanded call."""
        if ":" not in name:
            name = f"{name}:0"
        while name in self._same:
            name = self._same[name]
        return name

    def inputs(self, name: str) -> list[str]:
        """Returns the input tensors of a node; the node of an argument, which is not in `nodes`, has no inputs."""
        return [self.tensor(tensor) for tensor in self._inputs.get(name, ())]

    def inside(self, name: str) -> list[str]:
        """Returns the result tensors of the functions of a loop or condition; an empty list for other nodes."""
        return [self.tensor(tensor) for results in self._inside.get(name, ()) for tensor in results]

    def settle(self, name: str, value: int) -> None:
        """Replaces a condition by the function that it runs.

        Args:
          name: name of a node whose operation is one of `CONDITIONS`.
          value: value of its first input.
        """
        branch = value if self.nodes[name].op.endswith("Case") else 1 - int(bool(value))
        functions = self._inside.pop(name)
        if not 0 <= branch < len(functions):
            branch = -1
        self._same.update({f"{name}:{number}": result for number, result in enumerate(functions[branch])})
        del self.nodes[name], self._inputs[name]

    def ancestors(self, tensors: Iterable[str], inside: bool = False) -> list[str]:
        """Returns the names of the nodes that tensors depend on, inputs first.

        Args:
          tensors: names of tensors.
          inside: whether loops and conditions also depend on the results of their expanded functions.
        """

        def needs(name: str) -> list[str]:
            tensors = self.inputs(name)
            if inside:
                tensors += self.inside(name)
            return [node_of(tensor) for tensor in tensors]

        return in_order([node_of(self.tensor(tensor)) for tensor in tensors], needs)

    def subgraph(self, names: Iterable[str]) -> Any:
        """Returns a GraphDef of some nodes, with the functions that they call."""
        from tensorflow.core.framework import graph_pb2

        graph = graph_pb2.GraphDef(versions=self.versions)
        for name in names:
            node = graph.node.add()
            node.CopyFrom(self.nodes[name])
            node.device = ""
            del node.input[:]
            node.input.extend(self.inputs(name))
            if "_class" in node.attr:  # colocation with other nodes, which may not be in this subgraph
                del node.attr["_class"]
        graph.library.function.extend(self._functions(graph.node))
        return graph

    def _functions(self, nodes: Iterable[Any]) -> list[Any]:
        names: dict[str, None] = {}
        pending = [name for node in nodes for name in _named_functions(node)]
        while pending:
            name = pending.pop()
            if name in self.library and name not in names:
                names[name] = None
                pending.extend(inner for node in self.library[name].node_def for inner in _named_functions(node))
        return [self.library[name] for name in names]

    def _add(self, nodes: Sequence[Any], prefix: str, arguments: dict[str, str], depth: int) -> None:
        """Adds the nodes of a graph or of a function.

        Args:
          nodes: NodeDefs of a graph or a function.
          prefix: prefix for their names in this graph.
          arguments: the actual tensor for each argument of the function, by name.
          depth: the number of calls around these nodes.
        """
        indices = _indices(nodes, self.library) if prefix or arguments else {}

        def tensor(name: str) -> str:
            if name in arguments:
                return arguments[name]
            if name not in indices and ":" not in name:
                name = f"{name}:0"
            return f"{prefix}{indices.get(name, name)}"

        for node in nodes:
            name = f"{prefix}{node.name}"
            inputs = [tensor(source) for source in node.input if not source.startswith("^")]
            callee = self._callee(node)
            if callee and depth < _DEEPEST:
                results = self._add_function(callee, f"{name}/{_INSIDE}/", inputs, depth + 1)
                self._same.update({f"{name}:{number}": result for number, result in enumerate(results)})
                continue
            self.nodes[name] = _renamed(node, name) if prefix else node
            self._inputs[name] = inputs
            if node.op in _CONTROL and depth < _DEEPEST:
                attributes, first = _CONTROL[node.op]
                for function in _functions_of(node, attributes):
                    if function in self.library:
                        results = self._add_function(function, f"{name}/{function}/", inputs[first:], depth + 1)
                        self._inside.setdefault(name, []).append(results)

    def _callee(self, node: Any) -> str | None:
        """Returns the name of the function that a node calls, or None; in older graphs the operation is this name."""
        name = str(node.attr["f"].func.name if node.op in _CALLS else node.op)
        return name if name in self.library else None

    def _add_function(self, name: str, prefix: str, inputs: Sequence[str], depth: int) -> list[str]:
        function = self.library[name]
        arguments = dict(zip((argument.name for argument in function.signature.input_arg), inputs))
        self._add(function.node_def, prefix, arguments, depth)
        indices = _indices(function.node_def, self.library)
        results = []
        for result in function.signature.output_arg:
            tensor = function.ret[result.name]
            results.append(arguments.get(tensor) or f"{prefix}{indices.get(tensor, tensor)}")
        return results


def in_order(roots: Iterable[str], needs: Callable[[str], Sequence[str]]) -> list[str]:
    """Returns some names and everything that they depend on, dependencies first.

    Args:
      roots: the names to start from.
      needs: returns the names that one name directly depends on.
    """
    seen: set[str] = set()
    order: list[str] = []
    pending = [(root, False) for root in reversed(list(roots))]
    while pending:
        name, is_done = pending.pop()
        if is_done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            pending.append((name, True))
            pending.extend((needed, False) for needed in reversed(needs(name)))
    return order


def node_of(tensor: str) -> str:
    """Returns the name of the node that outputs a tensor."""
    return tensor.rpartition(":")[0] or tensor


def _renamed(node: Any, name: str) -> Any:
    renamed = type(node)()
    renamed.CopyFrom(node)
    renamed.name = name
    return renamed


def _named_functions(node: Any) -> Iterator[str]:
    yield node.op  # in older graphs, this may be the name of a function
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)


def _functions_of(node: Any, attributes: Sequence[str]) -> Iterator[str]:
    for attribute in attributes:
        value = node.attr[attribute]
        if value.HasField("func"):
            yield value.func.name
        else:
            yield from (function.name for function in value.list.func)


def _indices(nodes: Iterable[Any], library: Mapping[str, Any]) -> dict[str, str]:
    """Returns the name ``node:index`` for each name ``node:output:index`` of the outputs of nodes."""
    from tensorflow.python.framework import op_def_registry

    indices = {}
    for node in nodes:
        signature = library[node.op].signature if node.op in library else op_def_registry.get(node.op)
        if signature is None:
            continue
        start = 0
        for output in signature.output_arg:
            count = 1
            if output.number_attr:
                count = node.attr[output.number_attr].i
            elif output.type_list_attr:
                count = len(node.attr[output.type_list_attr].list.type)
            for number in range(count):
                indices[f"{node.name}:{output.name}:{number}"] = f"{node.name}:{start + number}"
            start += count
    return indices
