"""Graphs as flat lists of nodes: the functions that they call are written out, at any depth.

Functions name their tensors ``node:output:index``, graphs ``node:index``; here all names are those of graphs. What
loops and conditions run is written out beside them, once each, so that a walk sees what their functions do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

_INSIDE = "-"  # between a call's name and those of its nodes
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
#: What stands in names for calls alone.
CALLS = frozenset({_INSIDE, *_CALLS})
#: Operations that run functions on conditions: the attributes that name the functions, and the first input that these
#: take.
_CONTROL = {
    "If": (("then_branch", "else_branch"), 1),
    "StatelessIf": (("then_branch", "else_branch"), 1),
    "While": (("body",), 0),
    "StatelessWhile": (("body",), 0),
    "Case": (("branches",), 1),
    "StatelessCase": (("branches",), 1),
}
#: Operations of which the functions are written out beside them.
CONTROL_FLOW = frozenset(_CONTROL)
#: Those of them that run one of their functions.
CONDITIONS = CONTROL_FLOW - {"While", "StatelessWhile"}
_DEEPEST = 100  # calls inside of calls; a function that calls itself has no end


class FlatGraph:
    """The nodes of a graph, without calls and without control inputs.

    Attributes:
      nodes: NodeDefs by name; `inputs` tells what each takes.
      library: the FunctionDefs by name, which loops and conditions still name.
      versions: the VersionDef of the graph.
    """

    def __init__(self, graph_def: Any):
        """Takes the nodes and the library of a GraphDef."""
        self.nodes: dict[str, Any] = {}
        self.library = {function.signature.name: function for function in graph_def.library.function}
        self.versions = graph_def.versions
        self._inputs: dict[str, list[str]] = {}
        self._inside: dict[str, list[list[str]]] = {}  # what each function of a loop or condition gives
        self._same: dict[str, str] = {}  # the tensor that a call's output or a function's argument stands for
        self._add(graph_def.node, "", {}, 0)

    @classmethod
    def of_function(cls, graph_def: Any, name: str) -> tuple[FlatGraph, list[str], list[str]]:
        """Returns the graph of one function of a library, and the names of its arguments' and its results' tensors."""
        flat = cls(type(graph_def)(library=graph_def.library, versions=graph_def.versions))
        arguments = [argument.name for argument in flat.library[name].signature.input_arg]
        results = flat._add_function(name, "", [f"{argument}:0" for argument in arguments], 0)
        return flat, [f"{argument}:0" for argument in arguments], [flat.tensor(result) for result in results]

    def tensor(self, name: str) -> str:
        """Returns the tensor that a name stands for."""
        name = name if ":" in name else f"{name}:0"
        while name in self._same:
            name = self._same[name]
        return name

    def inputs(self, name: str) -> list[str]:
        """Returns the tensors that a node takes; an argument's node, which is not in `nodes`, takes none."""
        return [self.tensor(tensor) for tensor in self._inputs.get(name, ())]

    def inside(self, name: str) -> list[str]:
        """Returns the tensors that the functions of a loop or condition give; none for other nodes."""
        return [self.tensor(tensor) for results in self._inside.get(name, ()) for tensor in results]

    def settle(self, name: str, value: int) -> None:
        """Puts the function that a condition runs in its place.

        Args:
          name: of a node whose operation is one of `CONDITIONS`.
          value: of its first input.
        """
        place = value if self.nodes[name].op.endswith("Case") else 1 - int(bool(value))
        functions = self._inside.pop(name)
        results = functions[place if 0 <= place < len(functions) else -1]
        self._same.update({f"{name}:{number}": result for number, result in enumerate(results)})
        del self.nodes[name], self._inputs[name]

    def ancestors(self, tensors: Iterable[str], inside: bool = False) -> list[str]:
        """Returns the names of the nodes that tensors need, each after what it needs.

        Args:
          tensors: names.
          inside: whether loops and conditions need what their functions, written out, give.
        """

        def needs(name: str) -> list[str]:
            tensors = self.inputs(name) + (self.inside(name) if inside else [])
            return [node_of(tensor) for tensor in tensors]

        return in_order([node_of(self.tensor(tensor)) for tensor in tensors], needs)

    def subgraph(self, names: Iterable[str]) -> Any:
        """Returns a GraphDef of some nodes, with the functions that these need."""
        from tensorflow.core.framework import graph_pb2

        graph = graph_pb2.GraphDef(versions=self.versions)
        for name in names:
            node = graph.node.add()
            node.CopyFrom(self.nodes[name])
            node.device = ""
            del node.input[:]
            node.input.extend(self.inputs(name))
            if "_class" in node.attr:  # where other nodes are placed, some of which are not here
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
        """Adds nodes of one scope.

        Args:
          nodes: NodeDefs of a graph, or of a function.
          prefix: of their names here.
          arguments: the tensors that a function's arguments stand for, by name.
          depth: how many calls lie around them.
        """
        named = _indices(nodes, self.library) if prefix or arguments else {}

        def tensor(name: str) -> str:
            if name in arguments:
                return arguments[name]
            return f"{prefix}{named.get(name, name if ':' in name else f'{name}:0')}"

        for node in nodes:
            name = f"{prefix}{node.name}"
            inputs = [tensor(source) for source in node.input if not source.startswith("^")]
            called = self._called(node)
            if called and depth < _DEEPEST:
                results = self._add_function(called, f"{name}/{_INSIDE}/", inputs, depth + 1)
                self._same.update({f"{name}:{number}": result for number, result in enumerate(results)})
                continue
            self.nodes[name] = node if not prefix else _renamed(node, name)
            self._inputs[name] = inputs
            if node.op in _CONTROL and depth < _DEEPEST:
                attributes, first = _CONTROL[node.op]
                for function in _functions_of(node, attributes):
                    if function in self.library:
                        results = self._add_function(function, f"{name}/{function}/", inputs[first:], depth + 1)
                        self._inside.setdefault(name, []).append(results)

    def _called(self, node: Any) -> str | None:
        """Returns the function that a node calls; older graphs call it by the name of an operation."""
        if node.op in _CALLS:
            name = str(node.attr["f"].func.name)
            return name if name in self.library else None
        return str(node.op) if node.op in self.library else None

    def _add_function(self, name: str, prefix: str, inputs: Sequence[str], depth: int) -> list[str]:
        function = self.library[name]
        arguments = dict(zip((argument.name for argument in function.signature.input_arg), inputs))
        self._add(function.node_def, prefix, arguments, depth)
        named = _indices(function.node_def, self.library)
        results = []
        for result in function.signature.output_arg:
            source = function.ret[result.name]
            results.append(arguments.get(source) or f"{prefix}{named.get(source, source)}")
        return results


def in_order(roots: Iterable[str], needs: Callable[[str], Sequence[str]]) -> list[str]:
    """Returns names and all that they need, each after what it needs.

    Args:
      roots: the names.
      needs: returns what one of them needs.
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
    """Returns the name of the node that a tensor belongs to."""
    return tensor.rpartition(":")[0] or tensor


def _renamed(node: Any, name: str) -> Any:
    renamed = type(node)()
    renamed.CopyFrom(node)
    renamed.name = name
    return renamed


def _named_functions(node: Any) -> Iterator[str]:
    yield node.op  # the name of a function, in older graphs
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)


def _functions_of(node: Any, attributes: Sequence[str]) -> Iterator[str]:
    for attribute in attributes:
        value = node.attr[attribute]
        yield from [value.func.name] if value.HasField("func") else [function.name for function in value.list.func]


def _indices(nodes: Iterable[Any], library: Mapping[str, Any]) -> dict[str, str]:
    """Returns ``node:index`` for each ``node:output:index`` of nodes."""
    from tensorflow.python.framework import op_def_registry

    indices = {}
    for node in nodes:
        operation = library[node.op].signature if node.op in library else op_def_registry.get(node.op)
        start = 0
        for output in operation.output_arg if operation is not None else ():
            count = 1
            if output.number_attr:
                count = node.attr[output.number_attr].i
            elif output.type_list_attr:
                count = len(node.attr[output.type_list_attr].list.type)
            for number in range(count):
                indices[f"{node.name}:{output.name}:{number}"] = f"{node.name}:{start + number}"
            start += count
    return indices
