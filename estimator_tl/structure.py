"""The structure of a backbone: its variables and layers, known without building a graph.

Backbones describe themselves with these classes, tuning policies select from
them, and graph building receives the resulting `CallMode`. They hold no
TensorFlow objects, so a policy is a pure function, easy to test.
"""

from __future__ import annotations

import dataclasses
import math

#: What happens to the batch-norm statistics of a backbone.
BATCH_NORM_MODES = ("inference", "train", "recalibrate")


@dataclasses.dataclass(frozen=True)
class SourceVariable:
    """A variable of a backbone.

    Attributes:
      name: unique within the backbone, without ``:0``; the name in checkpoints.
      shape: the static shape.
      dtype: e.g. ``float32``.
      trainable: whether gradients can move the variable. False for batch-norm statistics, counters, and variables
        that no output depends on.
      layer: name of the top-level Keras layer that owns the variable; None for backbones without layers.
      batch_norm: the batch-norm layer that owns the variable (the name of its first variable), or None.
      statistic: whether a call in training mode updates the variable without gradients; None if unknown: then every
        variable that is not trainable may be a statistic.
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
    """All variables of a backbone, in the order of its graph from input to output.

    Attributes:
      handle: the user's name of the backbone.
      variables: in graph order.
      layers: names of the backbone's layers, input first; None for a backbone without layers.
      one_training_switch: True for a backbone with a single ``training`` argument, which switches batch norm and
        dropout together, and in all layers.
      inference_only: why a backbone with one switch cannot be called for training, as a clause about it; empty if it
        can be.
      keeps_inference: whether the dropout layers were saved in inference mode, so that dropout is on only if the user
        asks for it.
      notes: lines to show to the user about how the backbone is called.
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
        """True if training mode would update some variables without gradients."""
        return any(is_statistic(variable) for variable in self.variables)


def is_statistic(variable: SourceVariable) -> bool:
    """Returns whether training mode may update a variable without gradients."""
    is_real = variable.dtype.startswith(("float", "bfloat"))
    return not variable.trainable and is_real and variable.statistic is not False


@dataclasses.dataclass(frozen=True)
class CallMode:
    """How a backbone is called in one graph.

    Attributes:
      train_batch_norm: the batch-norm layers (as in `SourceVariable.batch_norm`)
        that use and update batch statistics.
      dropout: whether dropout is on in the backbone.
      training: the ``training`` argument for backbones with one switch.
    """

    train_batch_norm: frozenset[str] = frozenset()
    dropout: bool = False
    training: bool = False
