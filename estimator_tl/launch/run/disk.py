"""Reports a full disk and damaged checkpoints in one line, and removes partial files."""

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
    """A block that turns the errors of a full disk or a damaged checkpoint into a UserError.

    Args:
      model_dir: the run directory.
      owned: whether this process owns the directory, so that it may remove partial files.

    Raises:
      UserError: the disk is full, or a checkpoint is damaged.
    """
    try:
        yield
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        reason = no_room(error)
        damaged = isinstance(error, tf.errors.DataLossError) and _DAMAGED.search(str(error))
        if not reason and not damaged:
            raise
        if owned:
            remove_debris(model_dir)
        if damaged:
            raise UserError(
                f"{damaged[1]} is damaged (its checksum differs); copy it again, or remove its .index file to go on "
                "from an older one."
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
    """Removes the partial files of checkpoints that were not written completely."""
    if not os.path.isdir(model_dir):
        return
    complete = set(listed_checkpoints(model_dir) or ())
    for path in Path(model_dir).iterdir():
        if _PARTS.fullmatch(path.name) or _lacks_index(path, complete):
            with contextlib.suppress(OSError):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _lacks_index(path: Path, complete: set[str]) -> bool:
    """Returns whether a file belongs to a checkpoint without an .index file, which TensorFlow writes last."""
    match = _FILES.fullmatch(path.name)
    if not match:
        return False
    prefix = os.path.join(path.parent, match[1])
    return prefix not in complete and not os.path.exists(f"{prefix}.index")
