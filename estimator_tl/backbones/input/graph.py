"""What a graph does to its images before the first weights: the parts up to there, run on images in known ranges."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from estimator_tl.backbones.input.range import BYTES, RANGES, UNIT, Array, Finding, Function, Range, find, joined
from estimator_tl.backbones.input.walk import SHAPES, meeting
from estimator_tl.compat import tf
from estimator_tl.tf_internals.eager import run_eagerly_apart
from estimator_tl.tf_internals.graphs.flat import CALLS, CONDITIONS, FlatGraph, node_of

_READS = ("ReadVariableOp", "VariableV2", "Variable")
#: What moves elements, or changes their type, and is no arithmetic for people.
_MOVES = frozenset(
    {
        "Cast", "ConcatV2", "Const", "ExpandDims", "GatherV2", "Identity", "MirrorPad", "Pack", "Pad", "PadV2",
        "PlaceholderWithDefault", "Reshape", "ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor",
        "ReverseV2", "ScaleAndTranslate", "Slice", "Split", "SplitV", "Squeeze", "StopGradient", "StridedSlice",
        "Transpose", "Unpack",
    }
)  # fmt: skip
#: What parts of a graph raise that cannot be run apart from the rest.
_FAILURES = (ValueError, KeyError, TypeError, RuntimeError, tf.errors.OpError)
_MOST_NAMES = 3
_MOST_TENSORS = 32  # that meet weights; further ones are not tried


@dataclasses.dataclass(frozen=True)
class InputGraph:
    """A graph that maps images to features.

    Attributes:
      flat: its nodes.
      source: the name of the tensor that takes the images.
      outputs: the names of the tensors with the features.
      variables: what reads the value of a variable, by the name of its node or argument.
      counters: the names of those variables that are whole numbers: seeds and the like, and no weights.
      constants: further values, by the name of the node or argument that takes them.
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
          shape: [1, height, width, channels] of them.
          layers: names that may stand in the names of nodes, to say where in the model that is.
        """
        self._settle(shape)
        weights = set(self.variables) - set(self.counters)
        met = meeting(self.flat, node_of(self.flat.tensor(self.source)), self.outputs, weights)
        if met.is_open:
            return Finding("a condition whose outcome depends on more than the image", None)
        finding = self._joined(met.plain, shape, RANGES, layers)
        if met.normalized and not finding.text:
            # Statistics tell the range of what reaches them, where nothing else has changed that. Those that batch norm
            # has moved part of the way from 0 and 1 to those of [0, 1] could be taken for some of [-1, 1].
            return self._joined(met.normalized, shape, (BYTES, UNIT), layers)
        return finding

    def _settle(self, shape: Sequence[int]) -> None:
        """Puts the branches that run for an image in place of conditions, as far as these can be run apart."""
        tried: set[str] = set()
        while True:
            reached = self.flat.ancestors(self.outputs)
            conditions = [n for n in reached if n in self.flat.nodes and self.flat.nodes[n].op in CONDITIONS]
            name = next((name for name in conditions if name not in tried), None)
            if name is None:
                return
            tried.add(name)
            decides = self.flat.inputs(name)[0]
            if self._differs_between_images(decides):
                continue
            with contextlib.suppress(*_FAILURES), self._running(decides) as function:
                self.flat.settle(name, int(function(np.zeros(shape))))

    def _differs_between_images(self, tensor: str) -> bool:
        """Whether a tensor depends on more of an image than its shape."""
        source = node_of(self.flat.tensor(self.source))
        differs = {source}
        for name in self.flat.ancestors([tensor]):
            node = self.flat.nodes.get(name)
            if node is not None and node.op not in SHAPES:
                differs |= {name for taken in self.flat.inputs(name) if node_of(taken) in differs}
        return node_of(self.flat.tensor(tensor)) in differs

    def _joined(
        self, tensors: Sequence[str], shape: Sequence[int], ranges: Sequence[Range], layers: Collection[str]
    ) -> Finding:
        finding = joined([self._found(tensor, shape, ranges) for tensor in tensors[:_MOST_TENSORS]])
        where = self._where(tensors, layers) if finding.text else ""
        return dataclasses.replace(finding, text=f"{finding.text}{where}")

    def _found(self, tensor: str, shape: Sequence[int], ranges: Sequence[Range]) -> Finding:
        try:
            with self._running(tensor) as function:
                return find(function, shape, ranges)
        except _FAILURES:
            return Finding("operations that cannot be run apart", None)

    def _running(self, tensor: str) -> contextlib.AbstractContextManager[Function]:
        """Returns a context that gives the part of the graph up to a tensor as a function."""
        return running(self._part(tensor), self.flat.tensor(self.source), self.flat.tensor(tensor), self.dtype)

    def _part(self, tensor: str) -> Any:
        """Returns the GraphDef of what a tensor needs, with values in place of variables and constants."""
        from_graph, values = [], {}
        source = node_of(self.flat.tensor(self.source))
        pending, seen = [node_of(self.flat.tensor(tensor))], set()
        while pending:
            name = pending.pop()
            if name in seen or name == source:
                continue
            seen.add(name)
            read = self._value(name)
            if read is not None:
                values[name] = read()
                continue
            from_graph.append(name)
            pending.extend(node_of(taken) for taken in self.flat.inputs(name))
        graph = self.flat.subgraph(from_graph)
        for name, value in values.items():
            node = graph.node.add(name=name, op="Const")
            node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        return graph

    def _value(self, name: str) -> Callable[[], Array] | None:
        """Returns what gives a node's value, where that is a variable's or known from elsewhere."""
        if name in self.constants:
            return self.constants[name]
        node = self.flat.nodes.get(name)
        if node is None or node.op not in _READS:
            return None
        while node is not None and node.op in ("ReadVariableOp", "Identity"):
            name = node_of(self.flat.inputs(name)[0])
            node = self.flat.nodes.get(name)
        return self.variables[name]

    def _where(self, tensors: Iterable[str], layers: Collection[str]) -> str:
        """Returns in which layers, or else nodes, the arithmetic is."""
        source = node_of(self.flat.tensor(self.source))
        has_data = {source}
        names: dict[str, None] = {}
        for name in self.flat.ancestors(tensors):
            node = self.flat.nodes.get(name)
            if node is not None and any(node_of(taken) in has_data for taken in self.flat.inputs(name)):
                has_data.add(name)
                if node.op not in _MOVES:
                    names[name] = None
        owners = list(dict.fromkeys(_owner(name, layers) for name in names))
        more = f" and {len(owners) - _MOST_NAMES} more" * (len(owners) > _MOST_NAMES)
        return f" ({', '.join(owners[:_MOST_NAMES])}{more})" if owners else ""


def _owner(node: str, layers: Collection[str]) -> str:
    """Returns the innermost layer in a node's name; without one, the innermost scope, or the node itself."""
    parts = [part for part in node.split("/") if part not in CALLS]
    layer = next((part for part in reversed(parts) if part in layers), "")
    return f"layer {layer}" if layer else parts[max(len(parts) - 2, 0)]


@contextlib.contextmanager
def running(graph_def: Any, source: str, tensor: str, dtype: Any) -> Iterator[Function]:
    """Gives a function that runs a graph on the CPU.

    Args:
      graph_def: without the node of `source`.
      source: the name of the tensor that takes the images.
      tensor: the name of the one that is asked for.
      dtype: of the images.
    """
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(dtype, name="images")
        fetched = images
        if tensor != source:
            is_used = any(source in (taken, f"{taken}:0") for node in graph_def.node for taken in node.input)
            given = {source: images} if is_used else {}
            (fetched,) = tf.import_graph_def(graph_def, given, [tensor], name="model")
    config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    with tf.compat.v1.Session(graph=graph, config=config) as session:
        yield lambda values: session.run(fetched, {images: values.astype(images.dtype.as_numpy_dtype)})


def found_in(graph: Callable[[], InputGraph], shape: Sequence[int]) -> Finding | None:
    """Returns what a model does to images; None where its graph cannot be read.

    Args:
      graph: returns its graph.
      shape: [1, height, width, channels].
    """

    def find_apart() -> Finding:
        return graph().finding(shape)

    try:
        return run_eagerly_apart(find_apart)
    except (StopIteration, *_FAILURES):
        return None
