"""Warm start from another run: its backbone, with batch-norm statistics, and optionally its head."""

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

#: The variable in which a warm-started run keeps the fingerprint of its start. A resumed run has the same fingerprint;
#: with another one the warm start would be ignored.
FINGERPRINT = "estimator_tl/warm_start"
_OBJECT_BASED = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The checkpoint that a run starts from.

    Attributes:
      path: the user's path: a model_dir or a checkpoint.
      checkpoint: the checkpoint's prefix.
      head: whether the head starts from the checkpoint as well.
    """

    path: str
    checkpoint: str
    head: bool

    @property
    def fingerprint(self) -> int:
        """A hash that identifies the checkpoint, also if it is copied elsewhere."""
        with open(f"{self.checkpoint}.index", "rb") as index:
            return int.from_bytes(hashlib.blake2b(index.read(), digest_size=7).digest(), "big")

    def check(self, structure: SourceStructure) -> None:
        """Checks that the checkpoint has the variables of a backbone.

        Raises:
          UserError: the checkpoint lacks a variable of the backbone, or has it with another shape.
        """
        shapes = tf.train.load_checkpoint(self.checkpoint).get_variable_to_shape_map()
        if any(name.endswith(_OBJECT_BASED) for name in shapes):
            raise UserError(
                f"{self.path} was written by tf.train.Checkpoint or Keras, not by an Estimator: its variables have "
                "the names of objects; warm-start from the model_dir of an Estimator."
            )
        for variable in structure.variables:
            difference = ""
            if variable.name not in shapes:
                difference = "is not"
            elif tuple(shapes[variable.name]) != variable.shape:
                difference = f"has shape {tuple(shapes[variable.name])}"
            if difference:
                raise UserError(
                    f"{self.path} is a run of another backbone: {variable.name} {difference} there, and "
                    f"{structure.handle} has {variable.shape}; warm-start from a run of the same backbone."
                )

    def values(self, structure: SourceStructure, head: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of the variables of the backbone and, if `self.head`, of the head.

        Args:
          structure: the structure of the backbone.
          head: the head's variables by name.

        Raises:
          UserError: the head is to start from the checkpoint, but the checkpoint has another head.
        """
        reader = tf.train.load_checkpoint(self.checkpoint)
        shapes = reader.get_variable_to_shape_map()
        names = [variable.name for variable in structure.variables]
        head_variables = head if self.head else {}
        for name, variable in head_variables.items():
            if shapes.get(name) != variable.shape.as_list():
                raise UserError(
                    f"{self.path} has another head: {name} has shape {shapes.get(name)} there and {variable.shape} "
                    "here; use the same head, or start with a new one (warm_start_head=False)."
                )
            names.append(name)
        return {name: reader.get_tensor(name) for name in names}

    def check_honoured(self, model_dir: str) -> None:
        """Checks that a model_dir is new, or that its run began from this checkpoint.

        Raises:
          UserError: the model_dir holds another run's checkpoint, so the warm start would be ignored.
        """
        checkpoint = latest_checkpoint(model_dir)
        if checkpoint is None:
            return
        reader = tf.train.load_checkpoint(checkpoint)
        if not reader.has_tensor(FINGERPRINT) or int(reader.get_tensor(FINGERPRINT)) != self.fingerprint:
            raise UserError(
                f"the warm start from {self.path} would be ignored: {model_dir} already has a checkpoint "
                f"({checkpoint}); use another model_dir, or leave the warm start out to resume this run."
            )


def warm_start(path: str, head: bool) -> WarmStart:
    """Finds the checkpoint that a run starts from.

    Args:
      path: a model_dir, or a checkpoint's prefix.
      head: whether the head starts from the checkpoint as well.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
    """
    checkpoint: str | None = path
    if os.path.isdir(path):
        checkpoint = None
        newest = newest_checkpoint(path)
        if newest:
            checkpoint = newest.path
            newest.report_damaged()
    if checkpoint is None or not os.path.exists(f"{checkpoint}.index"):
        raise UserError(f"{path} holds no checkpoint to start from; give the model_dir of a trained run.")
    checkpoint = os.path.abspath(checkpoint)
    check_literal(checkpoint, "warm_start_from")
    fault = damage(checkpoint)
    if fault:
        raise UserError(f"{path} is damaged ({fault}); warm-start from another checkpoint.")
    return WarmStart(path, checkpoint, head)


def store_fingerprint(start: WarmStart) -> None:
    """Adds the fingerprint to the current graph as a variable, and so to its checkpoints."""
    tf.compat.v1.get_variable(
        FINGERPRINT,
        dtype=tf.int64,
        initializer=tf.constant(start.fingerprint, tf.int64),
        trainable=False,
    )
