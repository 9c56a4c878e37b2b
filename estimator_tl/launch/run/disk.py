"""What a disk does to a run: it is full, or has lost a part of a checkpoint; each in one line."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.files import no_room
from estimator_tl.tf_internals.files.checkpoint_state import listed_checkpoints, newest_checkpoint

_DAMAGED = re.compile(r"TensorBundle at (.+?) shard \d+")
_PARTS = re.compile(r".*\.ckpt-\d+(_temp|\.data-\d{5}-of-\d{5}\.tempstate\d+)|checkpoint\w*\.tmp[0-9a-f]{32}")
_FILES = re.compile(r"(.*\.ckpt-\d+)\.(data-\d{5}-of-\d{5}|meta)")


@contextlib.contextmanager
def disk_errors(model_dir: str, owned: bool = False) -> Iterator[None]:
    """A block in which a full disk, and a checkpoint whose values are damaged, become one line.

    Args:
      model_dir: the run.
      owned: whether this process may remove what was half-written there.

    Raises:
      UserError: the disk is full, or a checkpoint damaged.
    """
    try:
        yield
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        reason = no_room(error)
        damaged = _DAMAGED.search(str(error)) if isinstance(error, tf.errors.DataLossError) else None
        if not reason and damaged is None:
            raise
        if owned:
            remove_debris(model_dir)
        if damaged is not None:
            raise UserError(
                f"{damaged[1]} is damaged (its values have another checksum); copy it again, or remove its .index file "
                "to take an older one."
            ) from error
        raise UserError(f"cannot write to {model_dir} ({reason}); {_remedy(model_dir)}") from error


def _remedy(model_dir: str) -> str:
    try:
        newest = newest_checkpoint(model_dir)
    except UserError:
        newest = None
    if newest is None:
        return "free space there and run the same command again."
    return f"free space there and run the same command to go on from {os.path.basename(newest.path)}, which is kept."


def remove_debris(model_dir: str) -> None:
    """Removes the parts of checkpoints that were not written to their end."""
    if not os.path.isdir(model_dir):
        return
    listed = set(listed_checkpoints(model_dir) or ())
    for path in Path(model_dir).iterdir():
        whole = _FILES.fullmatch(path.name)
        prefix = os.path.join(model_dir, whole[1]) if whole else ""
        if _PARTS.fullmatch(path.name) or (whole and prefix not in listed and not os.path.exists(f"{prefix}.index")):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
