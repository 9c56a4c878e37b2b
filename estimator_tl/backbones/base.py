"""What every pretrained source offers: a structure, an input contract, and a graph."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.specs import ImageSpec, InputSpec, TextSpec
from estimator_tl.structure import CallMode, SourceStructure

POOLINGS = ("avg", "max", "flatten", "none")


@dataclasses.dataclass(frozen=True)
class BuiltBackbone:
    """A source built into the current graph.

    Attributes:
      features: float tensor, [batch, depth] unless pooling is ``none``.
      variables: the graph's variable for each name of the structure.
      updates: ops that move batch-norm statistics; empty where the call itself does.
      regularization_losses: pairs of a variable's name and its scalar loss; the
        name is None where the source does not tell.
      initial_values: pretrained values by variable name, read when called; None
        where the variables' initializers already give them.
    """

    features: Any
    variables: Mapping[str, Any]
    updates: Sequence[Any]
    regularization_losses: Sequence[tuple[str | None, Any]]
    initial_values: Callable[[], Mapping[str, Any]] | None


class Backbone(abc.ABC):
    """A pretrained source.

    Constructors read the description eagerly, once; `build` is called in each
    graph that needs the source.

    Attributes:
      handle: what the user called it.
      kind: the sort of source in words, for people.
      structure: its variables and layers.
      input_spec: what it takes: pictures of a size and value range, or text.
      output_shape: static shape of the output before pooling, batch first; None
        where even the rank is unknown.
      pooling: of outputs with height and width: avg, max, flatten or none.
      is_random: whether it may draw random numbers while training, as dropout does.
    """

    is_random: bool = True
    handle: str
    kind: str
    structure: SourceStructure
    input_spec: InputSpec
    output_shape: tuple[int | None, ...] | None
    pooling: str

    @abc.abstractmethod
    def digest(self) -> str:
        """``sha256:...`` of the source's content."""

    @abc.abstractmethod
    def values(self) -> Mapping[str, Any]:
        """Returns the pretrained values by variable name, as arrays; variables without one keep their initializers."""

    @abc.abstractmethod
    def build(self, inputs: Any, mode: CallMode) -> BuiltBackbone:
        """Builds the source into the current graph.

        Args:
          inputs: as `input_spec` says: float32 [batch, height, width, channels] in the source's range, or string
            [batch].
          mode: see `CallMode`.
        """

    @property
    def image_spec(self) -> ImageSpec:
        """The `input_spec` of a source that takes pictures.

        Raises:
          UserError: it does not.
        """
        if not isinstance(self.input_spec, ImageSpec):
            raise UserError(f"{self.handle} takes {self.input_spec.what}, not pictures; use its input_spec.")
        return self.input_spec

    @image_spec.setter
    def image_spec(self, spec: ImageSpec) -> None:
        self.input_spec = spec

    @property
    def feature_rank(self) -> int | None:
        """Rank of the features after pooling, batch included."""
        if self.output_shape is None or self.pooling == "none":
            return None if self.output_shape is None else len(self.output_shape)
        return 2 if len(self.output_shape) == 4 or self.pooling == "flatten" else len(self.output_shape)

    def pool(self, features: Any) -> Any:
        """Pools a 4-D output to [batch, depth], as `pooling` says; other ranks pass.

        Several outputs are pooled one by one and joined along their last axis.

        Raises:
          UserError: they cannot be joined.
        """
        if isinstance(features, (list, tuple)):
            pooled = [self.pool(one) for one in features]
            _check_joinable([one.shape for one in pooled], self.handle)
            return tf.concat(pooled, axis=-1)
        rank = features.shape.rank
        if self.pooling == "flatten" and rank is not None and rank > 2:
            return tf.reshape(features, [-1, _static_size(features, self.handle)])
        if rank != 4 or self.pooling == "none":
            return features
        reduce = tf.reduce_max if self.pooling == "max" else tf.reduce_mean
        return reduce(features, axis=[1, 2])

    def joined_shape(self, shapes: Sequence[Sequence[int | None]]) -> tuple[int | None, ...]:
        """Returns the `output_shape` of several outputs that are pooled and joined, from the shapes before.

        Raises:
          UserError: they cannot be joined.
        """
        with tf.Graph().as_default():
            joined = self.pool([tf.compat.v1.placeholder(tf.float32, shape) for shape in shapes])
        return tuple(joined.shape.as_list())


def _check_joinable(shapes: Sequence[Any], handle: str) -> None:
    first = shapes[0]
    if any(shape.rank != first.rank or not shape[:-1].is_compatible_with(first[:-1]) for shape in shapes):
        raise UserError(
            f"the features of {handle} have the shapes {', '.join(map(str, shapes))}, which cannot be joined; "
            "use pooling avg, max or flatten."
        )


def _static_size(features: Any, handle: str) -> int:
    dims = features.shape.as_list()[1:]
    if None in dims:
        raise UserError(
            f"pooling=flatten needs a known output size, but {handle} gives {features.shape}; set --image_size."
        )
    size = 1
    for dim in dims:
        size *= dim
    return size


def resolve_size(handle: str, fixed: tuple[int | None, int | None], asked: int | tuple[int, int] | None) -> Any:
    """Returns (height, width): the source's own where it fixes them, else what the user asked for.

    Raises:
      UserError: they contradict each other, or neither says.
    """
    wanted = (asked, asked) if isinstance(asked, int) else asked
    result = []
    for index, side in enumerate(("height", "width")):
        own = fixed[index]
        want = None if wanted is None else wanted[index]
        if own is None and want is None:
            raise UserError(f"{handle} takes images of any size; say which with --image_size (e.g. 224).")
        if own is not None and want is not None and own != want:
            raise UserError(
                f"{handle} takes images of {side} {own} only, but --image_size asks for {want}; "
                "leave --image_size out, or choose another backbone."
            )
        result.append(own if own is not None else want)
    return tuple(result)


def check_input(handle: str, inputs: Any, spec: InputSpec) -> None:
    """Checks an input tensor against the contract.

    Raises:
      UserError: wrong type, rank, size or channels.
    """
    if isinstance(spec, TextSpec):
        if inputs.dtype != tf.string or inputs.shape.rank not in (1, None):
            raise UserError(
                f"{handle} takes text, string [batch], but the input_fn gives {inputs.dtype.name} {inputs.shape}; "
                "give the raw strings."
            )
        return
    expected = tf.TensorShape([None, *spec.shape])
    if not expected.is_compatible_with(inputs.shape):
        raise UserError(
            f"{handle} takes images of shape {expected}, but the input_fn gives {inputs.shape}; "
            "resize in the input_fn, or use one of etl.inputs with this backbone's image_spec."
        )
