"""Atomic writes, errors of a full disk, and paths that TensorFlow would take as patterns."""

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
    """Writes a file atomically, readable for all users: a reader never sees a part of it, not even after a crash.

    Args:
      path: path of the file; an old file is replaced.
      text: the content.
      lasting: whether the file must survive a power failure; False for files that are rewritten every few seconds.

    Raises:
      OSError: the file cannot be written. An old file stays as it was, and no temporary file remains.
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
    """Returns the system's message for a full disk, if the error has it; empty for any other error.

    The class does not tell: TensorFlow raises several for a full disk, even a RuntimeError and the error for the end
    of a dataset. The system's message does.
    """
    text = str(error)
    return next((message for message in _NO_ROOM if message in text), "")


def check_literal(path: str, name: str, writes: bool = False) -> None:
    """Checks that TensorFlow finds checkpoints below a path: it takes the path as a pattern to find and remove them.

    Args:
      path: a folder or file, exactly as passed to TensorFlow.
      name: the user's name of the path, e.g. the flag.
      writes: whether checkpoints are written there, and so also removed.

    Raises:
      UserError: the path is a pattern that does not match the path itself, or also matches others.
    """
    parts = path.split("/")
    literal = "\\" not in path and all(fnmatch.fnmatchcase(part, part) for part in parts)
    if literal and not (writes and set("*?") & set(path)):
        return
    effect = "would not find the files there"
    if literal:
        effect = "would remove checkpoints of other folders that match it"
    raise UserError(
        f"{name} {path}: TensorFlow takes [ ], \\, * and ? in a path as a pattern and {effect}; choose a name without "
        "them."
    )
