"""Checkpoints of any kind, read by name: TF1's two formats, object-based ones, and the newest of a model_dir."""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from estimator_tl.backbones.digest import file_digest, joined_digest
from estimator_tl.compat import tf
from estimator_tl.errors import UserError, first_line
from estimator_tl.files import check_literal
from estimator_tl.tf_internals.files.checkpoint_state import newest_checkpoint
from estimator_tl.tf_internals.files.object_graphs import GRAPH_KEY, variable_keys

_V1_SHARD = re.compile(r"-\d{5}-of-(\d{5})$")
_ANY_SHARD = "-?????-of-"
# What people copy from a file list: the name of one of a checkpoint's files.
_FILE_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
# A strategy's further copies of variables, equal to the first.
_TWIN = re.compile(r"/replica_\d+$")


class CheckpointFiles:
    """A checkpoint's variables by name.

    Attributes:
      path: what the user gave: a prefix or a folder.
      prefix: where TensorFlow finds the checkpoint.
      is_object_based: whether tf.train.Checkpoint, Keras or a SavedModel wrote it.
      keys: the key under which the checkpoint has a variable, by its names. Twins of replicas are left out.
      shapes: by key.
      types: TensorFlow's, by key.
    """

    def __init__(self, path: str):
        """Reads what the checkpoint holds, not its values.

        Raises:
          UserError: there is no readable checkpoint.
        """
        self.path = path
        self.prefix = _find(path)
        reader = self._open()
        shapes = reader.get_variable_to_shape_map()
        self.is_object_based = GRAPH_KEY in shapes
        self.types: Mapping[str, Any] = reader.get_variable_to_dtype_map()
        self.shapes = {key: tuple(shape) for key, shape in shapes.items()}
        if self.is_object_based:
            self.keys: Mapping[str, str] = variable_keys(reader)
        else:
            self.keys = {key: key for key in sorted(shapes) if not _TWIN.search(key)}

    def _open(self) -> Any:
        try:
            return tf.train.load_checkpoint(self.prefix)
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.path} is not a readable checkpoint ({first_line(error)}); copy it again."
            ) from error

    def read(self, keys: Iterable[str]) -> dict[str, Any]:
        """Returns values as arrays, by key.

        Raises:
          UserError: the files are damaged.
        """
        reader = self._open()
        values = {}
        for key in keys:
            try:
                values[key] = reader.get_tensor(key)
            except (tf.errors.OpError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"{key} cannot be read from {self.path} ({first_line(error)}); copy its files again."
                ) from error
        return values

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Digests of the checkpoint's files by name."""
        return {os.path.basename(file): file_digest(file) for file in _files(self.prefix)}

    def digest(self) -> str:
        """``sha256:...`` of the checkpoint's files."""
        return joined_digest(self.digests)


def _files(prefix: str) -> list[str]:
    """Returns the files that hold a checkpoint's variables; none where there is no checkpoint."""
    escaped = glob.escape(prefix)
    if os.path.isfile(f"{prefix}.index"):
        return [f"{prefix}.index", *sorted(glob.glob(f"{escaped}.data-?????-of-?????"))]
    if os.path.isfile(prefix):
        return [prefix]
    base, pattern, number = prefix.rpartition(_ANY_SHARD)  # what is found of the old format is named by a pattern
    if pattern:
        return sorted(glob.glob(f"{glob.escape(base)}{pattern}{number}"))
    return sorted(glob.glob(f"{escaped}{_ANY_SHARD}?????"))


def _find(path: str) -> str:
    """Returns the prefix by which TensorFlow finds what the user gave.

    Raises:
      UserError: there is no checkpoint, there are several, or TensorFlow cannot read below such a path.
    """
    place = _FILE_SUFFIX.sub("", os.path.abspath(os.path.expanduser(path)))
    check_literal(place, "checkpoint")
    if os.path.isdir(place):
        return _newest(path, place)
    files = _files(place)
    if files and _V1_SHARD.search(files[0]):  # the reader takes a pattern with their number in it
        return _V1_SHARD.sub(rf"{_ANY_SHARD}\1", files[0])
    if not files:
        there = glob.glob(f"{glob.escape(place)}*")
        found = f"{place}.index is missing" if there else "no such file or folder"
        raise UserError(
            f"{path} is not a checkpoint: {found}; give a prefix such as runs/model.ckpt-100, with its .index file "
            "beside the .data files, or a model_dir."
        )
    return place


def _newest(path: str, folder: str) -> str:
    newest = newest_checkpoint(folder)
    if newest:
        newest.tell()
        return newest.path
    # A folder that was copied without its file `checkpoint`.
    prefixes = sorted(file.removesuffix(".index") for file in glob.glob(f"{glob.escape(folder)}/*.index"))
    if len(prefixes) == 1:
        return prefixes[0]
    names = ", ".join(os.path.basename(prefix) for prefix in prefixes)
    if names:
        raise UserError(f"{path} holds several checkpoints and no list of them; give one of {names} with its folder.")
    raise UserError(f"{path} holds no checkpoint; give the model_dir of a trained run, or a checkpoint's prefix.")
