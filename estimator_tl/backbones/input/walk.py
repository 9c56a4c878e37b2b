"""Finds the tensors in a graph at which images meet the first weights.

The walk needs no rules for operations. A tensor that depends on the images and on no variable is before the weights;
the tensors that meet a variable are the input of the network proper. The walk goes on only past arithmetic whose
variables may be statistics (batch norm, a normalization).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.tf_internals.graphs.flat import CONDITIONS, CONTROL_FLOW, FlatGraph, node_of

_VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
#: Ops that depend on the shape of images and not on their values.
SHAPES = ("Shape", "ShapeN", "Size", "Rank")
_BATCH_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_ELEMENTWISE = ("Add", "AddV2", "BiasAdd", "BiasAddV1", "Div", "DivNoNan", "Mul", "RealDiv", "Sub", *_BATCH_NORMS)


@dataclasses.dataclass
class Boundary:
    """The tensors at which images meet weights.

    Attributes:
      plain: names of the tensors that meet variables first.
      normalized: names of the tensors that meet weights after arithmetic with variables that may be statistics.
      is_open: whether images may also bypass the weights, through a condition whose outcome is unknown.
    """

    plain: list[str] = dataclasses.field(default_factory=list)
    normalized: list[str] = dataclasses.field(default_factory=list)
    is_open: bool = False


class _Walk:
    """Sorts the nodes of a graph by what they depend on; `visit` takes the nodes in graph order."""

    def __init__(self, flat: FlatGraph, source: str, weights: Iterable[str]):
        self.boundary = Boundary()
        self._flat = flat
        self._images = {source}
        self._weights = set(weights)
        self._normalized: set[str] = set()

    def visit(self, name: str, node: Any) -> None:
        inputs = [node_of(tensor) for tensor in self._flat.inputs(name)]
        inside = [node_of(tensor) for tensor in self._flat.inside(name)]
        live = [tensor for tensor, owner in zip(self._flat.inputs(name), inputs) if self._is_live(owner)]
        has_images = any(owner in self._images for owner in inputs + inside)
        has_weights = _is_weight(node) or any(owner in self._weights for owner in inputs + inside)
        if has_images:
            self._images.add(name)
        if any(node_of(tensor) in self._normalized for tensor in live):
            self._normalized.add(name)
        if not has_weights:
            return
        if node.op in CONTROL_FLOW:
            self.boundary.is_open |= node.op in CONDITIONS and any(self._is_live(owner) for owner in inside)
        elif live and self._may_normalize(name, node, inputs, live):
            return
        self._weights.add(name)

    def _may_normalize(self, name: str, node: Any, inputs: Sequence[str], live: Sequence[str]) -> bool:
        """Adds the tensors at which images meet weights; returns whether the weights may be statistics."""
        is_mixed = any(owner in self._images and owner in self._weights for owner in inputs)
        may_normalize = len(live) == 1 and not is_mixed and _is_elementwise(node)
        for tensor in live:
            if node_of(tensor) not in self._normalized:
                self.boundary.plain.append(tensor)
            elif not may_normalize:
                self.boundary.normalized.append(tensor)
        if may_normalize:
            self._normalized.add(name)
        return may_normalize

    def _is_live(self, name: str) -> bool:
        return name in self._images and name not in self._weights


def weight_boundary(flat: FlatGraph, source: str, outputs: Iterable[str], weights: Iterable[str]) -> Boundary:
    """Returns the tensors at which images meet the first weights.

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
    boundary = walk.boundary
    return Boundary(list(dict.fromkeys(boundary.plain)), list(dict.fromkeys(boundary.normalized)), boundary.is_open)


def _is_weight(node: Any) -> bool:
    return node.op in _VARIABLES and tf.as_dtype(node.attr["dtype"].type).is_floating


def _is_elementwise(node: Any) -> bool:
    """Returns whether a node with a variable may be arithmetic with a statistic."""
    if node.op in _BATCH_NORMS:
        return "is_training" in node.attr and not node.attr["is_training"].b
    return node.op in _ELEMENTWISE
