"""What every pretrained source offers: a structure, an input contract, and a graph."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl.backbones.input_range import Finding, chosen_range
from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.specs import ImageSpec, InputSpec, TextSpec, linear_range
from estimator_tl.structure import CallMode, SourceStructure

POOLINGS = ("avg", "max", "flatten", "none")


class TakesTextError(UserError):
    """Settings of images are given for a source that takes text."""


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
      outputs: names of the outputs that can be asked for by `features`, where they have names other than of layers.
      unsafe: what it does beside computing features, such as reading files; allowed, or it would not be open.
      is_random: whether it may draw random numbers while training, as dropout does.
      has_content: whether it is somebody's work that a digest can pin; not where its values are random.
      finding: what it does to images before its first weights; None where that is not known.
    """

    is_random: bool = True
    outputs: Sequence[str] = ()
    unsafe: Sequence[str] = ()
    has_content: bool = True
    finding: Finding | None = None
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
        if not isinstance(features, (list, tuple)):
            return self._pool_one(features)
        pooled = [self._pool_one(one) for one in features]
        if len(pooled) == 1:
            return pooled[0]
        _check_joinable([one.shape for one in pooled], self.handle)
        return tf.concat(pooled, axis=-1)

    def _pool_one(self, features: Any) -> Any:
        rank = features.shape.rank
        if self.pooling == "flatten" and rank is not None and rank > 2:
            return tf.reshape(features, [-1, _static_size(features, self.handle)])
        if rank != 4 or self.pooling == "none":
            return features
        reduce = tf.reduce_max if self.pooling == "max" else tf.reduce_mean
        return reduce(features, axis=[1, 2])

    def joined_shape(self, shapes: Sequence[Any]) -> tuple[int | None, ...] | None:
        """Returns the `output_shape` for the static shapes of the outputs that are used: several are pooled and joined.

        Raises:
          UserError: they cannot be joined.
        """
        shape = tf.TensorShape(shapes[0])
        if len(shapes) > 1:
            with tf.Graph().as_default():
                shape = self.pool([tf.compat.v1.placeholder(tf.float32, shape) for shape in shapes]).shape
        return None if shape.rank is None else tuple(shape.as_list())


def _check_joinable(shapes: Sequence[Any], handle: str) -> None:
    first = shapes[0]
    if any(shape.rank != first.rank or not shape[:-1].is_compatible_with(first[:-1]) for shape in shapes):
        raise UserError(
            f"the features of {handle} have the shapes {', '.join(map(str, shapes))}, which cannot be joined; "
            "use pooling avg, max or flatten."
        )


def feature_names(handle: str, features: str | Sequence[str] | None, output_key: str | None = None) -> tuple[str, ...]:
    """Returns the names of the outputs that are to be used; none for a source's usual one.

    Args:
      handle: what the user called the source.
      features: a layer, endpoint or output, or several.
      output_key: the same for one.

    Raises:
      UserError: both are given, or they are no names.
    """
    if features is not None and output_key is not None:
        raise UserError(
            f"{handle}: features={features!r} and output_key={output_key!r} both say what to use; give one of them."
        )
    given = output_key if features is None else features
    names = tuple(given or ()) if isinstance(given, (list, tuple, type(None))) else (given,)
    if any(not isinstance(name, str) for name in names) or len(set(names)) < len(names) or (features == []):
        raise UserError(f"{handle}: features={features!r} must be a name or a list of different names.")
    return names


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


def one_image(
    handle: str, shape: Sequence[int | None], image_size: int | tuple[int, int] | None
) -> tuple[int, int, int, int]:
    """Returns the shape of one image in a batch by itself, for a source that takes images of a static shape.

    Args:
      handle: what the user called the source.
      shape: [batch, height, width, channels].
      image_size: see `resolve_size`.

    Raises:
      UserError: the size is not known, or another one is asked for.
    """
    height, width = resolve_size(handle, (shape[1], shape[2]), image_size)
    return (1, height, width, shape[3] or 3)


def images_spec(
    handle: str,
    shape: tuple[int, int, int, int],
    input_range: tuple[float, float] | None,
    finding: Finding | None,
) -> ImageSpec:
    """Returns the input contract of a source that takes images.

    Args:
      handle: what the user called the source.
      shape: see `one_image`.
      input_range: values that the source takes; by default, those that follow from `finding`, or else [0, 1].
      finding: what the source does to its input, if that is known.

    Raises:
      UserError: it does something from which no range follows, and none is given.
    """
    low, high = chosen_range(handle, finding, input_range)
    return ImageSpec(*shape[1:], linear_range(low, high), range_words((low, high)), (low, high))


def range_words(values: tuple[float, float]) -> str:
    """Returns a range for people, e.g. ``[0, 255]``."""
    return f"[{values[0]:g}, {values[1]:g}]"


def text_spec(handle: str, **of_pictures: Any) -> TextSpec:
    """Returns the input contract of a source that takes strings.

    Raises:
      TakesTextError: settings of images are given.
    """
    for name, value in of_pictures.items():
        if value is not None:
            raise TakesTextError(f"{handle} takes text, so {name} does not apply; leave it out.")
    return TextSpec()


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
