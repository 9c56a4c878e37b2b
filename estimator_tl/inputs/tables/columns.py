"""Columns of a table by name or number, and whether its first row names them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from estimator_tl.errors import UserError, nearest
from estimator_tl.inputs.tables.rows import Column, Row

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
# Usual names of text columns, in lower case.
_TEXTS = ("text", "texts", "sentence", "message", "sms", "tweet", "email", "comment", "review", "body", "content")
_USUAL_NAMES = frozenset((*_TEXTS, "title", "description", "document", "question", "query"))


def has_header(columns: Sequence[Column], header: bool | None) -> bool:
    """Returns whether the first row names the columns.

    Args:
      columns: names, or numbers from 0.
      header: what the user says; None for yes where a column is a name.

    Raises:
      UserError: a column is a name, but the user says that there is no header.
    """
    names = [column for column in columns if isinstance(column, str)]
    if names and header is False:
        raise UserError(f"csv: without a header columns are numbers from 0, not {names[0]!r}; e.g. text=1, label=0.")
    if header is None:
        return bool(names)
    return header


def find_columns(path: str, names: Sequence[str], columns: Sequence[Column]) -> list[int]:
    """Returns the numbers of the columns.

    Args:
      path: the file, for the error.
      names: the first row.
      columns: names, or numbers from 0.

    Raises:
      UserError: there is no such column.
    """
    for column in columns:
        if isinstance(column, str) and column not in names:
            raise UserError(
                f"{path} has no column {column!r} in its first row; {nearest(column, names)} Where it has no header, "
                "give numbers from 0, e.g. text=1, label=0."
            )
        if not isinstance(column, str) and not 0 <= column < len(names):
            raise UserError(f"{path} has {len(names)} columns, so {column} is none of them; count from 0.")
    return [list(names).index(column) if isinstance(column, str) else column for column in columns]


def check_unique(path: str, names: Sequence[str], columns: Sequence[Column]) -> None:
    """Checks that each of the columns has a unique name in the first row.

    Raises:
      UserError: several columns have the same name.
    """
    for column in columns:
        numbers = [number for number, name in enumerate(names) if name == column]
        if len(numbers) > 1:
            raise UserError(
                f"{path} has {len(numbers)} columns {column!r} (numbers {', '.join(map(str, numbers))}, from 0); name "
                f"one by its number with header=True, e.g. {numbers[0]}, or rename it."
            )


def check_no_header(path: str, rows: Sequence[Row], text: int, label: int, known: Sequence[str] | None) -> None:
    """Checks that the first row of a table whose columns are given by number is an example.

    Args:
      path: the file, for the error.
      rows: the rows that have all columns.
      text: number of the text's column.
      label: number of the label's column.
      known: the classes, where they are known.

    Raises:
      UserError: the first row may name the columns.
    """
    labels = [row[label].strip() for _, row in rows]
    if labels.count(labels[0]) > 1 or (known is not None and labels[0] in known):
        return
    other_labels = set(labels[1:])
    may_be_names = known is not None or 1 < len(other_labels) < len(labels) - 1
    if may_be_names or looks_like_names(rows, text):
        raise _in_doubt(path, rows[0])


def check_no_names(path: str, rows: Sequence[Row], text: int) -> None:
    """Checks that the first row of a table without labels, whose columns are given by number, holds a text.

    Raises:
      UserError: the first row looks like names of columns.
    """
    if looks_like_names(rows, text):
        raise _in_doubt(path, rows[0])


def looks_like_names(rows: Sequence[Row], text: int) -> bool:
    """Returns whether the first row has a usual name for the text, or a word where all others have numbers."""
    first, *others = (row for _, row in rows)
    if first[text].strip().lower() in _USUAL_NAMES:
        return True
    columns = zip(first, *others)
    return bool(others) and any(
        not _NUMBER.fullmatch(name) and all(_NUMBER.fullmatch(value) for value in values) for name, *values in columns
    )


def _in_doubt(path: str, row: Row) -> UserError:
    number, values = row
    excerpt = ", ".join(repr(value[:30]) for value in values[:4])
    return UserError(
        f"{path} line {number} ({excerpt}) may name the columns or be an example; say header=True or header=False."
    )
