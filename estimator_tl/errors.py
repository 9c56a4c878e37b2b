"""Errors that a user can fix, and the nearest-name helper that their messages share."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence

#: Stopped by a signal after saving. Kubernetes TFJob's policy `ExitCode` starts a task again from 128 on.
STOPPED_EXIT_CODE = 143
#: Lost the tasks that it works with, or makes no step any more: to be started again. TFJob calls it user-defined.
STALLED_EXIT_CODE = 138
#: Stands in a message for the name of a pretrained source, until `about` puts it there.
SOURCE = "<source>"


class UserError(Exception):
    """Something the user can fix: a flag, a file, a data set, a source.

    The message is one line that says what is wrong, where, and what to do.
    The command line prints it as ``error: ...`` and leaves with exit code 2.
    """

    exit_code = 2


class LostPeersError(RuntimeError):
    """The tasks that this one works with are gone, or never came; it asks to be started again by leaving with 138."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type where the message is empty."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def shortened(items: Sequence[str], limit: int = 5) -> str:
    """Returns the first items, separated by commas, and how many more there are.

    Args:
      items: any number.
      limit: how many to list at most.
    """
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def and_more(count: int, word: str = "and") -> str:
    """Returns e.g. `` (and 3 more)`` for what follows one that is named; empty for none."""
    return f" ({word} {count} more)" if count > 0 else ""


@contextlib.contextmanager
def about(handle: str) -> Iterator[None]:
    """A block in which `handle`, what the user called a source, replaces `SOURCE` in the messages of user errors.

    So what looks into a source need not know its name.
    """
    try:
        yield
    except UserError as error:
        message = str(error).replace(repr(SOURCE), repr(handle))
        error.args = (message.replace(SOURCE, handle),)
        raise


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
