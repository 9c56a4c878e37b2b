"""What every pretrained source offers: a structure, an input contract, and a graph."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl import compat
from estimator_tl.backbones.input.range import Finding
from estimator_tl.errors import SOURCE, UserError, about
from estimator_tl.specs import ImageSpec, InputSpec
from estimator_tl.structure import CallMode, SourceStructure


class TakesTextError(UserError):
    """Settings of images are given for a source that takes text."""


class NoLayersError(UserError):
    """A Keras model has no layers that a graph could be rebuilt from; as a SavedModel it may be used."""


@dataclasses.dataclass(frozen=True)
class BuiltBackbone:
    """A source built into the current graph.

    Attributes:
      features: float32, [batch, depth] unless pooling is ``none``.
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
      pooling: of outputs with height and width, or with tokens: avg, max, flatten or none.
      outputs: names of the outputs that can be asked for by `features`, where they have names other than of layers.
      unsafe: what it does beside computing features, such as reading files; allowed, or it would not be open.
      is_random: whether it may draw random numbers while training, as dropout does.
      draws: kinds of the random ops by which its answers for inference differ from call to call; empty for most.
      has_content: whether it is somebody's work that a digest can pin; not where its values are random.
      finding: what it does to images before its first weights; None where that is not known.
      one_device: why several replicas cannot train it together, as a clause about it; empty where they can.
    """

    is_random: bool = True
    outputs: Sequence[str] = ()
    unsafe: Sequence[str] = ()
    draws: Sequence[str] = ()
    has_content: bool = True
    finding: Finding | None = None
    one_device: str = ""
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
        return min(2, len(self.output_shape))

    def pool(self, features: Any) -> Any:
        """Pools an output to float32 [batch, depth], as `pooling` says; one that is that already passes.

        What is pooled are the places of an image, [batch, height, width, depth], or the tokens of a sequence, [batch,
        tokens, depth]. Several outputs are pooled one by one and joined along their last axis. This is the one place
        where outputs of another precision (float16, bfloat16, float64) become float32, which heads compute in.

        Raises:
          UserError: they cannot be joined, or are no floating-point numbers.
        """
        with about(self.handle):
            if not isinstance(features, (list, tuple)):
                return self._pool_one(features)
            pooled = [self._pool_one(one) for one in features]
            if len(pooled) == 1:
                return pooled[0]
            first = pooled[0].shape
            if any(one.shape.rank != first.rank or not one.shape[:-1].is_compatible_with(first[:-1]) for one in pooled):
                raise UserError(
                    f"the features of {SOURCE} have the shapes {', '.join(str(one.shape) for one in pooled)}, which "
                    "cannot be joined; use pooling avg, max or flatten."
                )
            return compat.tf.concat(pooled, axis=-1)

    def _pool_one(self, features: Any) -> Any:
        check_floating(features.dtype)
        features = compat.tf.cast(features, compat.tf.float32)  # before pooling: a mean in float16 would lose digits
        rank = features.shape.rank
        if self.pooling == "flatten" and rank is not None and rank > 2:
            check_flattens(features.shape, "set --image_size, or use pooling avg or max")
            return compat.tf.reshape(features, [-1, math.prod(features.shape.as_list()[1:])])
        if rank is None or rank <= 2 or self.pooling == "none":
            return features
        return self._reduced(features)

    def _reduced(self, features: Any) -> Any:
        """Returns the mean or the maximum, as `pooling` says, over all places of float32 [batch, ..., depth]."""
        reduce = compat.tf.reduce_max if self.pooling == "max" else compat.tf.reduce_mean
        return reduce(features, axis=list(range(1, features.shape.rank - 1)))

    def joined_shape(self, shapes: Sequence[Any]) -> tuple[int | None, ...] | None:
        """Returns the `output_shape` for the static shapes of the outputs that are used: several are pooled and joined.

        Raises:
          UserError: they cannot be joined.
        """
        shape = compat.tf.TensorShape(shapes[0])
        if len(shapes) > 1:
            with compat.tf.Graph().as_default():
                shape = self.pool([compat.tf.compat.v1.placeholder(compat.tf.float32, shape) for shape in shapes]).shape
        return None if shape.rank is None else tuple(shape.as_list())


def check_floating(dtype: Any) -> None:
    """Checks the type of an output that is to be features.

    Raises:
      UserError: it is no floating-point type, so that no head could learn from it.
    """
    if not compat.tf.as_dtype(dtype).is_floating:
        raise UserError(
            f"{SOURCE} gives {compat.tf.as_dtype(dtype).name}, not floating-point features; name an output that holds "
            "numbers to learn from, with features=."
        )


def feature_names(features: str | Sequence[str] | None, output_key: str | None = None) -> tuple[str, ...]:
    """Returns the names of the outputs that are to be used; none for a source's usual one.

    Args:
      features: a layer, endpoint or output, or several.
      output_key: the same for one.

    Raises:
      UserError: both are given, or they are no names.
    """
    if features is not None and output_key is not None:
        raise UserError(
            f"{SOURCE}: features={features!r} and output_key={output_key!r} both say what to use; give one of them."
        )
    given = output_key if features is None else features
    names = tuple(given or ()) if isinstance(given, (list, tuple, type(None))) else (given,)
    if any(not isinstance(name, str) for name in names) or len(set(names)) < len(names) or (features == []):
        raise UserError(f"{SOURCE}: features={features!r} must be a name or a list of different names.")
    return names


def check_flattens(shape: Any, remedy: str) -> None:
    """Checks that an output can be flattened to [batch, depth].

    Args:
      shape: static, of the output.
      remedy: what to do about one that cannot.

    Raises:
      UserError: its size is not known.
    """
    if None in shape.as_list()[1:]:
        raise UserError(f"pooling=flatten needs a known output size, but {SOURCE} gives {shape}; {remedy}.")
