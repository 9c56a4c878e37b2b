"""The interface of all backbones: a structure, an input contract, and a graph."""

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
from estimator_tl.types import Tensor, Variable


class TakesTextError(UserError):
    """The user gives settings for images, but the backbone takes text."""


class NoLayersError(UserError):
    """A Keras model has no layers to rebuild a graph from; it may still work as a SavedModel."""


@dataclasses.dataclass(frozen=True)
class BuiltBackbone:
    """A backbone that is built into the current graph.

    Attributes:
      features: float32, [batch, depth] unless pooling is ``none``.
      variables: the graph's variable for each name of the structure.
      updates: ops that update batch-norm statistics; empty where the call itself
        updates them.
      regularization_losses: pairs of a variable's name and its scalar loss; the
        name is None where the backbone does not know it.
      initial_values: returns the pretrained values by variable name; None where
        the variables' initializers already give them.
    """

    features: Tensor
    variables: Mapping[str, Variable]
    updates: Sequence[Tensor]
    regularization_losses: Sequence[tuple[str | None, Any]]
    initial_values: Callable[[], Mapping[str, Any]] | None


class Backbone(abc.ABC):
    """A pretrained backbone.

    Constructors read the description eagerly, once; `build` is called in each
    graph that needs the backbone.

    Attributes:
      handle: the handle or path that the user wrote.
      kind: the kind of backbone in words, for people.
      structure: its variables and layers.
      input_spec: what it takes: images of a size and value range, or text.
      output_shape: static shape of the output before pooling, batch first; None
        where even the rank is unknown.
      pooling: of outputs with height and width, or with tokens: avg, max, flatten or none.
      outputs: names of the outputs that `features` can select, other than names of layers.
      unsafe: operations that access files or run code, which the user has allowed.
      is_random: whether it may draw random numbers in training, as dropout does.
      draws: kinds of the random ops that make its inference differ from call to call; empty for most backbones.
      has_content: whether its values come from a file, so that a digest can pin them; False where they are random.
      finding: what it does to images before its first weights; None where that is unknown.
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
        """Returns ``sha256:...`` of the backbone's content."""

    @abc.abstractmethod
    def values(self) -> Mapping[str, Any]:
        """Returns the pretrained values by variable name, as arrays; variables without one keep their initializers."""

    @abc.abstractmethod
    def build(self, inputs: Tensor, mode: CallMode) -> BuiltBackbone:
        """Builds the backbone into the current graph.

        Args:
          inputs: as `input_spec` says: float32 [batch, height, width, channels] in the backbone's range, or string
            [batch].
          mode: see `CallMode`.
        """

    @property
    def image_spec(self) -> ImageSpec:
        """The `input_spec` of a backbone that takes images.

        Raises:
          UserError: the backbone takes text.
        """
        if not isinstance(self.input_spec, ImageSpec):
            raise UserError(f"{self.handle} takes {self.input_spec.what}, not images; use its input_spec.")
        return self.input_spec

    @image_spec.setter
    def image_spec(self, spec: ImageSpec) -> None:
        self.input_spec = spec

    @property
    def feature_rank(self) -> int | None:
        """Rank of the features after pooling, batch included."""
        if self.output_shape is None:
            return None
        rank = len(self.output_shape)
        return rank if self.pooling == "none" else min(2, rank)

    def pool(self, features: Tensor) -> Any:
        """Pools an output to float32 [batch, depth], as `pooling` says; an output of rank 2 is not pooled.

        Pooling is over the positions of an image, [batch, height, width, depth], or the tokens of a sequence, [batch,
        tokens, depth]. Several outputs are pooled separately and joined along their last axis. Only here do outputs of
        another precision (float16, bfloat16, float64) become float32, which heads compute in.

        Raises:
          UserError: the shapes do not match for joining, or an output is not floating-point.
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

    def _pool_one(self, features: Tensor) -> Any:
        check_floating(features.dtype)
        features = compat.tf.cast(features, compat.tf.float32)  # before pooling: a mean in float16 would lose digits
        rank = features.shape.rank
        if self.pooling == "flatten" and rank is not None and rank > 2:
            check_flattens(features.shape, "set --image_size, or use pooling avg or max")
            return compat.tf.reshape(features, [-1, math.prod(features.shape.as_list()[1:])])
        if rank is None or rank <= 2 or self.pooling == "none":
            return features
        return self._reduced(features)

    def _reduced(self, features: Tensor) -> Any:
        """Returns the mean or the maximum, as `pooling` says, over all positions of float32 [batch, ..., depth]."""
        reduce = compat.tf.reduce_max if self.pooling == "max" else compat.tf.reduce_mean
        return reduce(features, axis=list(range(1, features.shape.rank - 1)))

    def joined_shape(self, shapes: Sequence[Any]) -> tuple[int | None, ...] | None:
        """Returns the `output_shape` for the static shapes of the selected outputs; several are pooled and joined.

        Raises:
          UserError: the shapes do not match for joining.
        """
        shape = compat.tf.TensorShape(shapes[0])
        if len(shapes) > 1:
            with compat.tf.Graph().as_default():
                shape = self.pool([compat.tf.compat.v1.placeholder(compat.tf.float32, shape) for shape in shapes]).shape
        return None if shape.rank is None else tuple(shape.as_list())


def check_floating(dtype: Any) -> None:
    """Checks that an output can serve as features.

    Raises:
      UserError: its type is not floating-point, so no head could learn from it.
    """
    if not compat.tf.as_dtype(dtype).is_floating:
        raise UserError(
            f"{SOURCE} gives {compat.tf.as_dtype(dtype).name}, not floating-point features; name an output that holds "
            "numbers to learn from, with features=."
        )


def feature_names(features: str | Sequence[str] | None, output_key: str | None = None) -> tuple[str, ...]:
    """Returns the names of the selected outputs; empty for the default output.

    Args:
      features: a layer, endpoint or output, or several.
      output_key: one output.

    Raises:
      UserError: the user gives both arguments, or a value that is not a name or a list of different names.
    """
    if features is not None and output_key is not None:
        raise UserError(
            f"{SOURCE}: features={features!r} and output_key={output_key!r} both say what to use; give one of them."
        )
    selection: Any = output_key if features is None else features
    if selection is None:
        return ()
    names = tuple(selection) if isinstance(selection, (list, tuple)) else (selection,)
    if any(not isinstance(name, str) for name in names) or len(set(names)) < len(names) or (features == []):
        raise UserError(f"{SOURCE}: features={features!r} must be a name or a list of different names.")
    return names


def check_flattens(shape: Any, remedy: str) -> None:
    """Checks that an output can be flattened to [batch, depth].

    Args:
      shape: static, of the output.
      remedy: advice for an output that cannot be flattened.

    Raises:
      UserError: the output's size is unknown.
    """
    if None in shape.as_list()[1:]:
        raise UserError(f"pooling=flatten needs a known output size, but {SOURCE} gives {shape}; {remedy}.")
