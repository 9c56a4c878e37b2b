"""Files that are there as a whole or not at all; what a full disk says; names that TensorFlow takes as patterns."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import tempfile
from pathlib import Path

from estimator_tl.errors import UserError

_NO_ROOM = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)))


def write_whole(path: str | Path, text: str, lasting: bool = True) -> None:
    """Writes a file so that a reader, or a crash, never sees a part of it; others may read it.

    Args:
      path: of the file; an old one is replaced.
      text: its content.
      lasting: whether it must survive a loss of power; False for what is written again every few seconds.

    Raises:
      OSError: it cannot be written; the old file is as it was, and nothing is left beside it.
    """
    folder, name = os.path.split(path)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, prefix=f".{name}.", delete=False) as stream:
        try:
            stream.write(text)
            stream.flush()
            if lasting:
                os.fsync(stream.fileno())
            os.chmod(stream.name, 0o644)
            os.replace(stream.name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(stream.name)
            raise


def no_room(error: BaseException) -> str:
    """Returns what the system says about a disk without room for a file; empty where the error is another one.

    TensorFlow raises errors of several classes for it, a RuntimeError and one that stands for the end of a dataset
    among them, so it is told by the system's own words.
    """
    text = str(error)
    return next((words for words in _NO_ROOM if words in text), "")


def check_literal(path: str, name: str, writes: bool = False) -> None:
    """Checks that TensorFlow finds checkpoints below this path: it looks for them by a pattern, and so removes them.

    Args:
      path: a folder or file, as TensorFlow is given it.
      name: what the user calls it, e.g. the flag.
      writes: whether checkpoints are written, and so removed there too.

    Raises:
      UserError: the path is a pattern that would not match the path itself, or would match others.
    """
    parts = path.split("/")
    literal = "\\" not in path and all(fnmatch.fnmatchcase(part, part) for part in parts)
    if literal and not (writes and set("*?") & set(path)):
        return
    why = "would not find the files there"
    if literal:
        why = "would remove checkpoints of other folders that match it"
    raise UserError(
        f"{name} {path}: TensorFlow takes [ ], \\, * and ? in a path as a pattern and {why}; choose a name without "
        "them."
    )
