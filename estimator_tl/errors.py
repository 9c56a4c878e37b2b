"""Errors that a user can fix, and helpers for their messages."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence

#: A signal stopped the task, after a save. Kubernetes TFJob's policy `ExitCode` restarts a task for codes from 128 on.
STOPPED_EXIT_CODE = 143
#: The task lost its peers or makes no more steps, and asks for a restart. TFJob calls this code user-defined.
STALLED_EXIT_CODE = 138
#: Placeholder in a message for the name of a backbone; `about` replaces it.
SOURCE = "<source>"


class UserError(Exception):
    """Something the user can fix: a flag, a file, a dataset, a backbone.

    The message is one line that says what is wrong, where, and what to do.
    The command line prints it as ``error: ...`` and leaves with exit code 2.
    """

    exit_code = 2


class LostPeersError(RuntimeError):
    """The peers of this task are gone, or never came. The task exits with 138 to ask for a restart."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its type if the message is empty."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0]


def shortened(items: Sequence[str], limit: int = 5) -> str:
    """Returns the first items, separated by commas, and how many more there are.

    Args:
      items: any number.
      limit: how many to list at most.
    """
    text = ", ".join(items[:limit])
    if len(items) > limit:
        text += f" and {len(items) - limit} more"
    return text


def and_more(count: int, word: str = "and") -> str:
    """Returns e.g. `` (and 3 more)``, to follow the first of several names; empty for a count of 0."""
    return f" ({word} {count} more)" if count > 0 else ""


@contextlib.contextmanager
def about(handle: str) -> Iterator[None]:
    """A block in which `handle`, the user's name of a backbone, replaces `SOURCE` in the messages of user errors.

    So code that reads a backbone need not know its name.
    """
    try:
        yield
    except UserError as error:
        message = str(error).replace(repr(SOURCE), repr(handle))
        error.args = (message.replace(SOURCE, handle),)
        raise


def check_known(kind: str, value: str, known: Iterable[str]) -> str:
    """Returns `value` if it is one of the known values.

    Raises:
      UserError: the value is unknown; the message suggests the nearest one.
    """
    names = list(known)
    if value not in names:
        raise UserError(f"unknown {kind} {value!r}; {nearest(str(value), names)}")
    return value


def nearest(name: str, known: Iterable[str], limit: int = 12) -> str:
    """Returns the end of an error message that suggests names close to `name`.

    Args:
      name: what the user wrote.
      known: the valid names.
      limit: how many names to list at most.

    Returns:
      ``"did you mean 'adam'? Known: adam, rmsprop, sgd."`` or, where no name
      is close, the list alone.
    """
    names = [str(item) for item in known]
    by_lower_case = {item.lower(): item for item in names}
    matches = difflib.get_close_matches(name.lower(), list(by_lower_case), n=1, cutoff=0.5)
    name_list = ", ".join(names[:limit]) or "none"
    if len(names) > limit:
        name_list += f", ... ({len(names)} in all)"
    if matches:
        return f"did you mean '{by_lower_case[matches[0]]}'? Known: {name_list}."
    return f"Known: {name_list}."
