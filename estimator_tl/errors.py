"""Errors that a user can fix, and the nearest-name helper that their messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: Of a process that left because nothing moved any more. The policy ExitCode of Kubernetes' TFJob starts a container
#: again when it ends with 128 or above, and takes 1 to 127 for errors that would come again.
STALLED_EXIT_CODE = 138


class UserError(ValueError):
    """Something the user can fix: a flag, a file, a data set, a source.

    The message is one line that says what is wrong, where, and what to do.
    The command line prints it as ``error: ...`` and leaves with exit code 2.
    """

    exit_code = 2


def check_known(kind: str, value: str, known: Iterable[str]) -> str:
    """Returns `value` if it is one of the known ones.

    Raises:
      UserError: it is not; the nearest is offered.
    """
    known = list(known)
    if value not in known:
        raise UserError(f"unknown {kind} {value!r}; {nearest(str(value), known)}")
    return value


def nearest(name: str, known: Iterable[str], limit: int = 12) -> str:
    """Returns the end of an error message that offers names near `name`.

    Args:
      name: what the user wrote.
      known: the names that would have been right.
      limit: how many names to list at most.

    Returns:
      ``"did you mean 'adam'? Known: adam, rmsprop, sgd."`` or, where nothing
      is near, the list alone.
    """
    names = [str(item) for item in known]
    lowered = {item.lower(): item for item in names}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    listed = ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
    hint = f"did you mean '{lowered[close[0]]}'? " if close else ""
    return f"{hint}Known: {listed or 'none'}."
