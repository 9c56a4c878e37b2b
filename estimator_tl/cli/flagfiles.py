"""Flagfiles: one flag on each line, read with its file and line number for error messages."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence

from estimator_tl.errors import UserError

_NESTED = re.compile(r"--?flagfile(?:[=\s]\s*(.*))?")


@dataclasses.dataclass(frozen=True)
class Line:
    """A flag of a flagfile.

    Attributes:
      file: the path of the file.
      number: the line number, from 1.
      text: the flag, such as ``--batch_size=8``.
    """

    file: str
    number: int
    text: str

    @property
    def position(self) -> str:
        """The file and the line, for the beginning of an error message."""
        return f"flagfile {self.file} line {self.number}"


def split(arguments: Sequence[str], takes_value: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Returns the flagfiles that a command line names, and its other arguments.

    Args:
      arguments: the command line; arguments after ``--`` are not flags.
      takes_value: returns whether the argument after the given one is its value.

    Raises:
      UserError: a flagfile has no name.
    """
    files: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        nested = _NESTED.fullmatch(argument)
        if argument == "--":
            return files, [*others, argument, *rest]
        if nested:
            path = nested[1]
            if path is None and rest:  # --flagfile FILE
                path = rest.pop(0)
            files.append(_check_path(path))
            continue
        others.append(argument)
        if takes_value(argument) and rest:
            others.append(rest.pop(0))
    return files, others


def lines_of(path: str, within: tuple[str, ...] = ()) -> Iterator[Line]:
    """Yields the flags of a flagfile, and of the flagfiles that it names, in order.

    Empty lines and lines that begin with ``#`` or ``//`` are comments.

    Args:
      path: the path of the file.
      within: the chain of files that name this one, outermost first.

    Raises:
      UserError: the file cannot be read, is not text, or names itself.
    """
    path = os.path.expanduser(path)
    if path in within:
        raise UserError(f"flagfile {path} reads itself ({' -> '.join([*within, path])}); take one of these lines out.")
    for number, text in enumerate(_texts(path, within), 1):
        flag = text.strip()
        if not flag or flag.startswith(("#", "//")):
            continue
        nested = _NESTED.fullmatch(flag)
        if nested:
            yield from lines_of(_check_path(nested[1]), (*within, path))
        else:
            yield Line(path, number, flag)


def _texts(path: str, within: tuple[str, ...]) -> Iterator[str]:
    origin = f" (named by {within[-1]})" if within else ""
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"flagfile {path}{origin} cannot be read ({reason}); check the path.") from error
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"flagfile {path} line {number} is not UTF-8 text; save the file as UTF-8, one flag a line."
            ) from error


def _check_path(path: str | None) -> str:
    if not path:
        raise UserError("--flagfile names no file; write --flagfile=FILE.")
    return path
