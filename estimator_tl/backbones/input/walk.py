"""Where in a graph images meet the first weights.

The walk needs no rule for an operation: a tensor that depends on the images and on no variable is before the weights,
and those that meet a variable are what the network is given. Only arithmetic by which a variable may be a statistic
(batch norm, a normalization) is looked through.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.tf_internals.graphs.flat import CONDITIONS, CONTROL_FLOW, FlatGraph, node_of

_VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
#: What gives the shape of images rather than their values.
SHAPES = ("Shape", "ShapeN", "Size", "Rank")
_BATCH_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_ELEMENTWISE = ("Add", "AddV2", "BiasAdd", "BiasAddV1", "Div", "DivNoNan", "Mul", "RealDiv", "Sub", *_BATCH_NORMS)


@dataclasses.dataclass
class Met:
    """What images are where they meet weights.

    Attributes:
      plain: names of the tensors that meet variables first.
      normalized: those that meet others after arithmetic with variables that may be statistics.
      is_open: whether images may also get past the weights, by a condition whose outcome is not known.
    """

    plain: list[str] = dataclasses.field(default_factory=list)
    normalized: list[str] = dataclasses.field(default_factory=list)
    is_open: bool = False


class _Walk:
    """Nodes of a graph, parted by what they depend on; `visit` takes them in order."""

    def __init__(self, flat: FlatGraph, source: str, weights: Iterable[str]):
        self.met = Met()
        self._flat = flat
        self._images = {source}
        self._weights = set(weights)
        self._normalized: set[str] = set()

    def visit(self, name: str, node: Any) -> None:
        taken = [node_of(tensor) for tensor in self._flat.inputs(name)]
        inside = [node_of(tensor) for tensor in self._flat.inside(name)]
        live = [tensor for tensor, owner in zip(self._flat.inputs(name), taken) if self._is_live(owner)]
        has_images = any(owner in self._images for owner in taken + inside)
        has_weights = _is_weight(node) or any(owner in self._weights for owner in taken + inside)
        if has_images:
            self._images.add(name)
        if any(node_of(tensor) in self._normalized for tensor in live):
            self._normalized.add(name)
        if not has_weights:
            return
        if node.op in CONTROL_FLOW:
            self.met.is_open |= node.op in CONDITIONS and any(self._is_live(owner) for owner in inside)
        elif live and self._meets(name, node, taken, live):
            return
        self._weights.add(name)

    def _meets(self, name: str, node: Any, taken: Sequence[str], live: Sequence[str]) -> bool:
        """Notes where images meet weights; returns whether these may be statistics, so that the walk goes on."""
        is_mixed = any(owner in self._images and owner in self._weights for owner in taken)
        goes_on = len(live) == 1 and not is_mixed and _is_elementwise(node)
        for tensor in live:
            if node_of(tensor) not in self._normalized:
                self.met.plain.append(tensor)
            elif not goes_on:
                self.met.normalized.append(tensor)
        if goes_on:
            self._normalized.add(name)
        return goes_on

    def _is_live(self, name: str) -> bool:
        return name in self._images and name not in self._weights


def meeting(flat: FlatGraph, source: str, outputs: Iterable[str], weights: Iterable[str]) -> Met:
    """Returns the tensors in which images meet the first weights.

    Args:
      flat: the graph.
      source: the node that gives the images.
      outputs: names of the tensors with the features.
      weights: arguments that stand for weights, besides the operations of variables.
    """
    walk = _Walk(flat, source, weights)
    for name in flat.ancestors(outputs, inside=True):
        node = flat.nodes.get(name)
        if node is not None and name != source and node.op not in SHAPES:
            walk.visit(name, node)
    met = walk.met
    return Met(list(dict.fromkeys(met.plain)), list(dict.fromkeys(met.normalized)), met.is_open)


def _is_weight(node: Any) -> bool:
    return node.op in _VARIABLES and tf.as_dtype(node.attr["dtype"].type).is_floating


def _is_elementwise(node: Any) -> bool:
    """Whether a node with a variable may be one that takes out statistics."""
    if node.op in _BATCH_NORMS:
        return "is_training" in node.attr and not node.attr["is_training"].b
    return node.op in _ELEMENTWISE
