"""Reads checkpoints of any kind by name: TF1's two formats, object-based checkpoints, the newest in a model_dir."""

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
# Users may copy the name of one of a checkpoint's files instead of its prefix.
_FILE_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
# Copies of variables in the further replicas of a strategy; they equal the first replica's.
_TWIN = re.compile(r"/replica_\d+$")


class CheckpointFiles:
    """A checkpoint's variables by name.

    Attributes:
      path: the prefix or folder that the user named.
      prefix: the prefix that TensorFlow reads the checkpoint by.
      is_object_based: whether tf.train.Checkpoint, Keras or a SavedModel wrote it.
      keys: the checkpoint's key of each variable, by the variable's names; without the copies in further replicas.
      shapes: by key.
      types: dtypes by key.
    """

    def __init__(self, path: str):
        """Reads the names, shapes and types of the checkpoint, not its values.

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
    base, pattern, number = prefix.rpartition(_ANY_SHARD)  # `_find` returns such a pattern for the old format
    if pattern:
        return sorted(glob.glob(f"{glob.escape(base)}{pattern}{number}"))
    return sorted(glob.glob(f"{escaped}{_ANY_SHARD}?????"))


def _find(path: str) -> str:
    """Returns the prefix by which TensorFlow reads the checkpoint that a user names.

    Raises:
      UserError: there is no checkpoint, there are several, or TensorFlow does not support such a path.
    """
    prefix = _FILE_SUFFIX.sub("", os.path.abspath(os.path.expanduser(path)))
    check_literal(prefix, "checkpoint")
    if os.path.isdir(prefix):
        return _newest(path, prefix)
    files = _files(prefix)
    if files and _V1_SHARD.search(files[0]):  # the reader takes a pattern with the number of shards in it
        return _V1_SHARD.sub(rf"{_ANY_SHARD}\1", files[0])
    if not files:
        problem = "no such file or folder"
        if glob.glob(f"{glob.escape(prefix)}*"):
            problem = f"{prefix}.index is missing"
        raise UserError(
            f"{path} is not a checkpoint: {problem}; give a prefix such as runs/model.ckpt-100, with its .index file "
            "beside the .data files, or a model_dir."
        )
    return prefix


def _newest(path: str, folder: str) -> str:
    newest = newest_checkpoint(folder)
    if newest:
        newest.report_damaged()
        return newest.path
    # A folder that was copied without its file `checkpoint`.
    prefixes = sorted(file.removesuffix(".index") for file in glob.glob(f"{glob.escape(folder)}/*.index"))
    if len(prefixes) == 1:
        return prefixes[0]
    names = ", ".join(os.path.basename(prefix) for prefix in prefixes)
    if names:
        raise UserError(f"{path} holds several checkpoints and no list of them; give one of {names} with its folder.")
    raise UserError(f"{path} holds no checkpoint; give the model_dir of a trained run, or a checkpoint's prefix.")
