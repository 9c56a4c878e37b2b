"""What a pretrained source is made of, known without building a graph.

Backbones describe themselves with these values, tuning policies select from
them, and graph building receives the resulting `CallMode`. They hold no
TensorFlow objects, so a policy is a pure function that tests can call by itself.
"""

from __future__ import annotations

import dataclasses
import math

#: What happens to the batch-norm statistics of a source.
BATCH_NORM_MODES = ("inference", "train", "recalibrate")


@dataclasses.dataclass(frozen=True)
class SourceVariable:
    """A variable of a pretrained source.

    Attributes:
      name: unique within the source, without ``:0``; the name in checkpoints.
      shape: its static shape.
      dtype: e.g. ``float32``.
      trainable: whether the source itself lets gradients move it. False for
        batch-norm statistics, counters, and what no output depends on.
      layer: name of the top-level Keras layer that owns it; None for sources without layers.
      batch_norm: which batch-norm layer owns it (the name of that layer's first variable), or None.
      statistic: whether a call in training mode moves it without gradients; None where the source does not say, and
        anything that is not trainable may be one.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    layer: str | None = None
    batch_norm: str | None = None
    statistic: bool | None = None

    @property
    def group(self) -> str:
        """The name up to its last slash: conv1/kernel and conv1/bias are of group conv1."""
        return self.name.rpartition("/")[0] or self.name

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class SourceStructure:
    """All variables of a source, in the order of its graph from input to output.

    Attributes:
      handle: what the user called the source.
      variables: in graph order.
      layers: the source's own layer list (names, input first), or None where it has none.
      one_training_switch: True where the source has a single ``training`` argument,
        so that batch norm and dropout cannot be told apart nor set in part.
      inference_only: why a source with one switch cannot be called for training, as a clause about it; empty where it
        can.
      keeps_inference: whether layers that drop were saved as called in inference mode, so that dropout is on only
        where somebody asks for it.
      notes: what people should know of how the source is called, in lines.
    """

    handle: str
    variables: tuple[SourceVariable, ...]
    layers: tuple[str, ...] | None = None
    one_training_switch: bool = False
    inference_only: str = ""
    keeps_inference: bool = False
    notes: tuple[str, ...] = ()

    def groups(self) -> list[str]:
        """Names of the groups that have something to train, in graph order."""
        return list(dict.fromkeys(v.group for v in self.variables if v.trainable))

    @property
    def has_statistics(self) -> bool:
        """True where variables exist that training mode would move without gradients."""
        return any(is_statistic(variable) for variable in self.variables)


def is_statistic(variable: SourceVariable) -> bool:
    """Returns whether training mode may move a variable without gradients."""
    is_real = variable.dtype.startswith(("float", "bfloat"))
    return not variable.trainable and is_real and variable.statistic is not False


@dataclasses.dataclass(frozen=True)
class CallMode:
    """How a source is called in one graph.

    Attributes:
      train_batch_norm: the batch-norm layers (as in `SourceVariable.batch_norm`)
        that use and update batch statistics.
      dropout: whether dropout layers of the source drop.
      training: the ``training`` argument for sources with one switch.
    """

    train_batch_norm: frozenset[str] = frozenset()
    dropout: bool = False
    training: bool = False
