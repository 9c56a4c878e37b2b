"""Finds what a graph does to its images before the first weights, by running that part on images in known ranges."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from estimator_tl.backbones.input.range import BYTES, RANGES, UNIT, Array, Finding, Function, Range, find, joined
from estimator_tl.backbones.input.walk import SHAPES, weight_boundary
from estimator_tl.compat import tf
from estimator_tl.errors import shortened
from estimator_tl.tf_internals.eager import run_eagerly_in_thread
from estimator_tl.tf_internals.graphs.flat import CALLS, CONDITIONS, FlatGraph, node_of
from estimator_tl.types import GraphDef

_READS = ("ReadVariableOp", "VariableV2", "Variable")
#: Ops that move elements or change their type; messages do not count them as arithmetic.
_MOVES = frozenset(
    {
        "Cast", "ConcatV2", "Const", "ExpandDims", "GatherV2", "Identity", "MirrorPad", "Pack", "Pad", "PadV2",
        "PlaceholderWithDefault", "Reshape", "ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor",
        "ReverseV2", "ScaleAndTranslate", "Slice", "Split", "SplitV", "Squeeze", "StopGradient", "StridedSlice",
        "Transpose", "Unpack",
    }
)  # fmt: skip
#: Exceptions of a part of a graph that does not run without the rest.
_FAILURES = (ValueError, KeyError, TypeError, RuntimeError, tf.errors.OpError)
_MAX_NAMES = 3
_MAX_TENSORS = 32  # tensors to run among those that meet weights


@dataclasses.dataclass(frozen=True)
class InputGraph:
    """A graph that maps images to features.

    Attributes:
      flat: its nodes.
      source: the name of the tensor that takes the images.
      outputs: the names of the tensors with the features.
      variables: functions that return the value of a variable, by the name of its node or argument.
      counters: the names of integer variables, such as seeds, which are not weights.
      constants: functions that return other values, by the name of the node or argument that takes them.
      dtype: of the images.
    """

    flat: FlatGraph
    source: str
    outputs: Sequence[str]
    variables: Mapping[str, Callable[[], Array]]
    counters: Collection[str] = ()
    constants: Mapping[str, Callable[[], Array]] = dataclasses.field(default_factory=dict)
    dtype: Any = tf.float32

    def finding(self, shape: Sequence[int], layers: Collection[str] = ()) -> Finding:
        """Returns what the graph does to images. Eager only.

        Args:
          shape: [1, height, width, channels] of the images.
          layers: names of layers, to look for in the names of nodes and to use in the text.
        """
        self._resolve_conditions(shape)
        weights = set(self.variables) - set(self.counters)
        boundary = weight_boundary(self.flat, node_of(self.flat.tensor(self.source)), self.outputs, weights)
        if boundary.is_open:
            return Finding("a condition whose outcome depends on more than the image", None)
        finding = self._joined(boundary.plain, shape, RANGES, layers)
        if boundary.normalized and not finding.text:
            # If nothing else changes the images, the statistics of a normalization show their range. SIGNED is not
            # tried: statistics on their way from 0 and 1 to the statistics of [0, 1] look like statistics of [-1, 1].
            return self._joined(boundary.normalized, shape, (BYTES, UNIT), layers)
        return finding

    def _resolve_conditions(self, shape: Sequence[int]) -> None:
        """Replaces each condition by the branch that runs for an image, if the condition can be computed alone."""
        tried: set[str] = set()
        while True:
            names = self.flat.ancestors(self.outputs)
            conditions = [n for n in names if n in self.flat.nodes and self.flat.nodes[n].op in CONDITIONS]
            name = next((name for name in conditions if name not in tried), None)
            if name is None:
                return
            tried.add(name)
            condition = self.flat.inputs(name)[0]
            if self._differs_between_images(condition):
                continue
            with contextlib.suppress(*_FAILURES), self._running(condition) as function:
                self.flat.settle(name, int(function(np.zeros(shape))))

    def _differs_between_images(self, tensor: str) -> bool:
        """Returns whether a tensor depends on more of an image than its shape."""
        source = node_of(self.flat.tensor(self.source))
        differs = {source}
        for name in self.flat.ancestors([tensor]):
            node = self.flat.nodes.get(name)
            if node is not None and node.op not in SHAPES:
                differs |= {name for tensor_in in self.flat.inputs(name) if node_of(tensor_in) in differs}
        return node_of(self.flat.tensor(tensor)) in differs

    def _joined(
        self, tensors: Sequence[str], shape: Sequence[int], ranges: Sequence[Range], layers: Collection[str]
    ) -> Finding:
        finding = joined([self._finding_at(tensor, shape, ranges) for tensor in tensors[:_MAX_TENSORS]])
        if not finding.text:
            return finding
        return dataclasses.replace(finding, text=f"{finding.text}{self._owners_text(tensors, layers)}")

    def _finding_at(self, tensor: str, shape: Sequence[int], ranges: Sequence[Range]) -> Finding:
        try:
            with self._running(tensor) as function:
                return find(function, shape, ranges)
        except _FAILURES:
            return Finding("operations that cannot be run apart", None)

    def _running(self, tensor: str) -> contextlib.AbstractContextManager[Function]:
        """Returns a context manager that gives the part of the graph up to a tensor as a function."""
        return running(self._part(tensor), self.flat.tensor(self.source), self.flat.tensor(tensor), self.dtype)

    def _part(self, tensor: str) -> Any:
        """Returns the GraphDef of the nodes that a tensor needs, with values in place of variables and constants."""
        names, values = [], {}
        source = node_of(self.flat.tensor(self.source))
        pending, seen = [node_of(self.flat.tensor(tensor))], set()
        while pending:
            name = pending.pop()
            if name in seen or name == source:
                continue
            seen.add(name)
            value_of = self._value(name)
            if value_of is not None:
                values[name] = value_of()
                continue
            names.append(name)
            pending.extend(node_of(tensor_in) for tensor_in in self.flat.inputs(name))
        graph = self.flat.subgraph(names)
        for name, value in values.items():
            node = graph.node.add(name=name, op="Const")
            node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        return graph

    def _value(self, name: str) -> Callable[[], Array] | None:
        """Returns a function for the value of a node that reads a variable or is in `constants`; None for others."""
        if name in self.constants:
            return self.constants[name]
        node = self.flat.nodes.get(name)
        if node is None or node.op not in _READS:
            return None
        while node is not None and node.op in ("ReadVariableOp", "Identity"):
            name = node_of(self.flat.inputs(name)[0])
            node = self.flat.nodes.get(name)
        return self.variables[name]

    def _owners_text(self, tensors: Iterable[str], layers: Collection[str]) -> str:
        """Returns the names of the layers, or else of the nodes, that do the arithmetic, in parentheses."""
        source = node_of(self.flat.tensor(self.source))
        has_data = {source}
        names: dict[str, None] = {}
        for name in self.flat.ancestors(tensors):
            node = self.flat.nodes.get(name)
            if node is not None and any(node_of(tensor) in has_data for tensor in self.flat.inputs(name)):
                has_data.add(name)
                if node.op not in _MOVES:
                    names[name] = None
        owners = list(dict.fromkeys(_owner(name, layers) for name in names))
        if not owners:
            return ""
        return f" ({shortened(owners, _MAX_NAMES)})"


def _owner(node: str, layers: Collection[str]) -> str:
    """Returns the innermost layer in a node's name; without a layer, the innermost scope, or the node."""
    parts = [part for part in node.split("/") if part not in CALLS]
    layer = next((part for part in reversed(parts) if part in layers), "")
    return f"layer {layer}" if layer else parts[max(len(parts) - 2, 0)]


@contextlib.contextmanager
def running(graph_def: GraphDef, source: str, tensor: str, dtype: Any) -> Iterator[Function]:
    """Gives a function that runs a graph on the CPU.

    Args:
      graph_def: without the node of `source`.
      source: the name of the tensor that takes the images.
      tensor: the name of the tensor to compute.
      dtype: of the images.
    """
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(dtype, name="images")
        output = images
        if tensor != source:
            needs_images = any(source in (name, f"{name}:0") for node in graph_def.node for name in node.input)
            input_map = {source: images} if needs_images else {}
            (output,) = tf.import_graph_def(graph_def, input_map, [tensor], name="model")
    config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    with tf.compat.v1.Session(graph=graph, config=config) as session:
        yield lambda values: session.run(output, {images: values.astype(images.dtype.as_numpy_dtype)})


def finding_of(graph: Callable[[], InputGraph], shape: Sequence[int]) -> Finding | None:
    """Returns what a model does to images; None where its graph cannot be read.

    Args:
      graph: returns its graph.
      shape: [1, height, width, channels].
    """

    def find_apart() -> Finding:
        return graph().finding(shape)

    try:
        return run_eagerly_in_thread(find_apart)
    except (StopIteration, *_FAILURES):
        return None
