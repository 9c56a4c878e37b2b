"""Finds the side effects of calling a saved graph: writes to variables, and random numbers.

They are read from the nodes in the file before anything is loaded. Training relies on them: a call for inference that
writes to a variable changes what the plan calls frozen, and a call that draws gives different results each time.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import logging

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.types import GraphDef

#: Ops that change the object in their first input: a variable, a generator's state, or a table.
_WRITES = re.compile(
    r"Assign(Add|Sub)?|Assign\w*VariableOp|AssignVariableXlaConcatND|(Resource)?StridedSliceAssign|"
    r"(Resource)?Scatter(Nd)?(Add|Sub|Update|Mul|Div|Min|Max)|(Resource)?(Sparse)?Apply[A-Z]\w*|"
    r"(Resource)?CountUpTo|NegTrain|Stateful(Uniform|StandardNormal|TruncatedNormal|Random)\w*|"
    r"Rng(Skip|ReadAndSkip)|LookupTable(Insert|Remove|Import)(V2)?"
)
#: Ops that draw new numbers in each call. Stateless ops draw from a seed that is their input: a constant or a variable.
_DRAWS = re.compile(
    r"Random(?!IndexShuffle|GammaGrad|ShuffleQueue|Dataset)\w+|(Parameterized)?TruncatedNormal|Multinomial|"
    r"SampleDistortedBoundingBox(V2)?|\w+CandidateSampler|NonDeterministicInts"
)
_PASSES_ON = ("Identity", "RefIdentity", "Enter", "RefEnter", "Switch", "RefSwitch", "PlaceholderWithDefault")
_BRANCHES = ("If", "StatelessIf")
#: Ops whose first input is not an argument of the functions that they call.
_WITH_SELECTOR = (*_BRANCHES, "Case", "StatelessCase", "RemoteCall")


@dataclasses.dataclass(frozen=True)
class Effects:
    """What a call does besides computing its outputs.

    Attributes:
      writes: names of the variables that it writes to.
      draws: kinds of the random ops that its outputs depend on, sorted.
    """

    writes: tuple[str, ...] = ()
    draws: tuple[str, ...] = ()


def check_inference(handle: str, effects: Effects, remedy: str) -> tuple[str, ...]:
    """Checks the effects of a backbone's call for inference, and warns if it draws random numbers.

    Args:
      handle: the backbone's handle, for messages.
      effects: of the call.
      remedy: advice for a call that writes.

    Returns:
      The kinds of the random ops.

    Raises:
      UserError: the call writes to variables.
    """
    if effects.writes:
        more = len(effects.writes) - 1
        others = f" and {more} more variables" if more else ""
        raise UserError(
            f"{handle} writes to {effects.writes[0]}{others} each time it is called for inference, so its answers "
            f"change from call to call and no part of it would stay frozen; {remedy}."
        )
    if effects.draws:
        logging.warning(
            "%s draws random numbers when it is called for inference (%s): its answers differ from call to call, in "
            "evaluation, prediction and exports too.",
            handle,
            ", ".join(effects.draws),
        )
    return effects.draws


class Library:
    """The nodes and the functions of a GraphDef, for questions about their effects."""

    def __init__(self, graph_def: GraphDef):
        """Indexes the nodes and functions of a GraphDef by name."""
        self._graph = _Body({node.name: node for node in graph_def.node}, {}, [])
        self._functions = {function.signature.name: function for function in graph_def.library.function}
        self._bodies: dict[str, _Body] = {}
        self._attributes: dict[str, list[str]] = {}

    def of_function(self, name: str, captured: Sequence[str], outputs: Iterable[int]) -> Effects:
        """Returns the effects of a function, whose nodes all run in each call.

        Args:
          name: of the function.
          captured: names of the objects that its last inputs refer to.
          outputs: indices of the selected outputs.
        """
        body = self._body(name)
        arguments = [""] * (len(body.arguments) - len(captured)) + list(captured)
        calling = frozenset([name])
        writes = self._writes(body, body.nodes, dict(zip(body.arguments, arguments)), calling)
        draws = self._draws(body, [body.returns[number] for number in outputs], calling)
        return Effects(tuple(dict.fromkeys(writes)), tuple(sorted(set(draws))))

    def of_tensors(self, tensors: Sequence[str], selected: Sequence[str]) -> Effects:
        """Returns the effects of computing tensors of the graph, where only the nodes that they need run.

        Args:
          tensors: names of all computed tensors.
          selected: names of the tensors that become features.
        """
        writes = self._writes(self._graph, self._graph.ancestors(tensors, control=True), {}, frozenset())
        draws = self._draws(self._graph, selected, frozenset())
        return Effects(tuple(dict.fromkeys(writes)), tuple(sorted(set(draws))))

    def _body(self, name: str) -> _Body:
        if name not in self._bodies:
            function = self._functions[name]
            arguments = {argument.name: number for number, argument in enumerate(function.signature.input_arg)}
            returns = [function.ret[output.name] for output in function.signature.output_arg]
            self._bodies[name] = _Body({node.name: node for node in function.node_def}, arguments, returns)
        return self._bodies[name]

    def _writes(
        self, body: _Body, names: Iterable[str], owners: Mapping[str, str], calling: frozenset[str]
    ) -> Iterator[str]:
        """Yields the names of the objects that nodes of a body write to.

        Args:
          body: of a graph or a function.
          names: of its nodes.
          owners: names of the objects that its arguments refer to.
          calling: the functions on the call stack; recursive calls add no effects.
        """
        for name in names:
            node = body.nodes[name]
            if name in body.dead:
                continue
            if _writes(node.op):
                yield from filter(None, [body.owner(node.input[0], owners)])
            for callee in self._callees(body, node):
                if callee not in calling:
                    inner = self._body(callee)
                    names_passed = [body.owner(tensor, owners) for tensor in _arguments(node)]
                    inner_owners = dict(zip(inner.arguments, names_passed))
                    yield from self._writes(inner, inner.nodes, inner_owners, calling | {callee})

    def _draws(self, body: _Body, roots: Iterable[str], calling: frozenset[str]) -> Iterator[str]:
        """Yields the kinds of the random ops that tensors of a body depend on; `calling` is as for `_writes`."""
        for name in body.ancestors(roots):
            node = body.nodes[name]
            if _draws(node.op):
                yield node.op
            for callee in self._callees(body, node):
                if callee not in calling:
                    inner = self._body(callee)
                    yield from self._draws(inner, inner.returns, calling | {callee})

    def _callees(self, body: _Body, node: Any) -> list[str]:
        """Returns the names of the functions that a node calls, without a branch that never runs."""
        if node.op in self._functions:
            return [node.op]
        if node.op not in self._attributes:  # the attributes are the same for all nodes of an op
            self._attributes[node.op] = [
                key for key, value in node.attr.items() if value.WhichOneof("value") == "func" or value.list.func
            ]
        keys = self._attributes[node.op]
        if node.op in _BRANCHES:
            condition = body.constant(node.input[0])
            if condition is not None:
                keys = ["then_branch" if condition else "else_branch"]
        values = [node.attr[key] for key in keys]
        names = [function.name for value in values for function in (value.func, *value.list.func)]
        return [name for name in names if name in self._functions]


@dataclasses.dataclass(frozen=True)
class _Body:
    """The nodes of a graph or of a function.

    Attributes:
      nodes: by name.
      arguments: index of a function's input by its name.
      returns: names of the tensors that a function returns.
    """

    nodes: Mapping[str, Any]
    arguments: Mapping[str, int]
    returns: Sequence[str]

    def owner(self, tensor: str, owners: Mapping[str, str]) -> str:
        """Returns the name of the object that a tensor refers to; empty for an object that the call itself makes."""
        name = _node_of(tensor)
        if name not in self.nodes:
            return owners.get(name, name)
        node = self.nodes[name]
        if node.op in _PASSES_ON:
            return self.owner(node.input[0], owners)
        return "" if node.op.startswith("Anonymous") else name

    def constant(self, tensor: str) -> bool | None:
        """Returns the constant value of a scalar boolean; None where it is not a constant."""
        node = self.nodes.get(_node_of(tensor))
        if node is not None and node.op == "Const":
            return bool(tf.make_ndarray(node.attr["value"].tensor).any())
        if node is not None and node.op in _PASSES_ON:
            return self.constant(node.input[0])
        return None

    @functools.cached_property
    def dead(self) -> frozenset[str]:
        """Names of the nodes that never run, because a Switch with a constant condition blocks their input."""
        ports = {}
        for name, node in self.nodes.items():
            if node.op in ("Switch", "RefSwitch"):
                condition = self.constant(node.input[1])
                if condition is not None:
                    ports[name] = not condition
        dead: set[str] = set()
        size = -1
        while ports and len(dead) != size:
            size = len(dead)
            for name, node in self.nodes.items():
                ends = [_node_of(i) in dead or ports.get(i.partition(":")[0]) == _is_true_port(i) for i in node.input]
                is_merge = node.op in ("Merge", "RefMerge")  # which runs if any of its inputs does
                if any(ends) and (all(ends) or not is_merge):
                    dead.add(name)
        return frozenset(dead)

    def ancestors(self, roots: Iterable[str], control: bool = False) -> list[str]:
        """Returns the names of the nodes that tensors depend on; with `control`, also through control dependencies."""
        stack = [_node_of(root) for root in roots]
        names: dict[str, None] = {}
        while stack:
            name = stack.pop()
            if name in names or name not in self.nodes or name in self.dead:
                continue
            names[name] = None
            stack.extend(_node_of(i) for i in self.nodes[name].input if control or not i.startswith("^"))
        return list(names)


@functools.cache
def _writes(op: str) -> bool:
    return _WRITES.fullmatch(op) is not None


@functools.cache
def _draws(op: str) -> bool:
    return _DRAWS.fullmatch(op) is not None


def _arguments(node: Any) -> list[str]:
    sources = [source for source in node.input if not source.startswith("^")]
    return sources[1:] if node.op in _WITH_SELECTOR else sources


def _node_of(tensor: str) -> str:
    """Returns the node of a tensor in a graph (``node:0``) or in a function (``node:output:0``)."""
    return tensor.lstrip("^").partition(":")[0]


def _is_true_port(tensor: str) -> bool:
    return tensor.endswith((":1", ":output_true:0"))
