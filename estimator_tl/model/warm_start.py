"""Starting from another run: its backbone, batch-norm statistics included, and its head where it fits."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.files import check_literal
from estimator_tl.structure import SourceStructure
from estimator_tl.tf_internals.files.bundles import damage
from estimator_tl.tf_internals.files.checkpoint_state import latest_checkpoint, newest_checkpoint

#: A variable of warm-started runs, by which a run that goes on is told from one that would ignore its warm start.
MARK = "estimator_tl/warm_start"
_OBJECT_BASED = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The checkpoint that a run starts from.

    Attributes:
      path: what the user gave: a model_dir or a checkpoint.
      checkpoint: the checkpoint's prefix.
      head: whether the head starts from it as well.
    """

    path: str
    checkpoint: str
    head: bool

    @property
    def mark(self) -> int:
        """A number that tells this checkpoint from others, wherever it lies."""
        with open(f"{self.checkpoint}.index", "rb") as index:
            return int.from_bytes(hashlib.blake2b(index.read(), digest_size=7).digest(), "big")

    def check(self, structure: SourceStructure) -> None:
        """Checks that the checkpoint is one of the same source.

        Raises:
          UserError: a variable of the source is not there, or has another shape.
        """
        shapes = tf.train.load_checkpoint(self.checkpoint).get_variable_to_shape_map()
        if any(name.endswith(_OBJECT_BASED) for name in shapes):
            raise UserError(
                f"{self.path} was written by tf.train.Checkpoint or Keras, not by an Estimator: its variables have "
                "the names of objects; warm-start from the model_dir of an Estimator."
            )
        for variable in structure.variables:
            found = shapes.get(variable.name)
            if found is None or tuple(found) != variable.shape:
                have = f"has shape {tuple(found)}" if found is not None else "is not"
                raise UserError(
                    f"{self.path} is a run of another backbone: {variable.name} {have} there, and {structure.handle} "
                    f"has {variable.shape}; warm-start from a run of the same backbone."
                )

    def values(self, structure: SourceStructure, head: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of the source's variables and, where asked for, of the head's.

        Args:
          structure: the source.
          head: the head's variables by name.

        Raises:
          UserError: the head is to start from the checkpoint and is another one there.
        """
        reader = tf.train.load_checkpoint(self.checkpoint)
        shapes = reader.get_variable_to_shape_map()
        names = [variable.name for variable in structure.variables]
        for name, variable in head.items() if self.head else ():
            if shapes.get(name) != variable.shape.as_list():
                raise UserError(
                    f"{self.path} has another head: {name} has shape {shapes.get(name)} there and {variable.shape} "
                    "here; use the same head, or start with a new one (warm_start_head=False)."
                )
            names.append(name)
        return {name: reader.get_tensor(name) for name in names}

    def check_honoured(self, model_dir: str) -> None:
        """Checks that a model_dir is new, or was begun from this very checkpoint.

        Raises:
          UserError: it has checkpoints of its own, so the warm start would be ignored.
        """
        own = latest_checkpoint(model_dir)
        if own is None:
            return
        reader = tf.train.load_checkpoint(own)
        if not reader.has_tensor(MARK) or int(reader.get_tensor(MARK)) != self.mark:
            raise UserError(
                f"the warm start from {self.path} would be ignored: {model_dir} has a checkpoint of its own ({own}); "
                "use another model_dir, or leave the warm start out to go on from there."
            )


def warm_start(path: str, head: bool) -> WarmStart:
    """Finds the checkpoint that a run starts from.

    Args:
      path: a model_dir, or a checkpoint's prefix.
      head: whether the head starts from it as well.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
    """
    checkpoint: str | None = path
    if os.path.isdir(path):
        newest = newest_checkpoint(path)
        checkpoint = newest.path if newest else None
        if newest:
            newest.tell()
    if checkpoint is None or not os.path.exists(f"{checkpoint}.index"):
        raise UserError(f"{path} holds no checkpoint to start from; give the model_dir of a trained run.")
    checkpoint = os.path.abspath(checkpoint)
    check_literal(checkpoint, "warm_start_from")
    fault = damage(checkpoint)
    if fault:
        raise UserError(f"{path} is damaged ({fault}); warm-start from another checkpoint.")
    return WarmStart(path, checkpoint, head)


def mark_graph(start: WarmStart) -> None:
    """Adds the mark to the current graph's variables, and so to its checkpoints."""
    tf.compat.v1.get_variable(
        MARK,
        dtype=tf.int64,
        initializer=tf.constant(start.mark, tf.int64),
        trainable=False,
    )
