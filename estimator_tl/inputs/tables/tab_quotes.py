r"""Decides what quotation marks mean in a tab-separated file: enclosed fields, or characters of the text.

Pandas, R and Excel enclose every field that holds a quotation mark, a tab or a line end, and double the marks inside.
So two things are evidence:

- A mark inside of a field that is not enclosed: the file does not quote fields.
- A doubled mark inside of an enclosed field, or a tab or line end there that would break the rows: the file quotes
  fields.

Without evidence, or with evidence for both, the file is ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from estimator_tl.errors import UserError
from estimator_tl.inputs.tables.file import line_number, split_lines

_ENCLOSED = r'"[^"]*(?:""[^"]*)*"'
_FIELD = re.compile(rf'({_ENCLOSED}|[^"\t\r\n]*)(\t|\r\n|\r|\n|\Z)')
_OPENING = re.compile(r'(?:\A|[\t\r\n])"')
_DOUBLED = re.compile(r'"[^"]*""[^"]*(?:""[^"]*)*"')

#: A field exactly as in the file, and the number of its first line.
_Field = tuple[str, int]


def has_quoted_fields(path: str, text: str) -> bool:
    """Returns whether quotation marks enclose fields of a tab-separated table.

    Args:
      path: the file, for the error.
      text: all of it.

    Raises:
      UserError: both ways of reading make sense; the message names the line.
    """
    if not _OPENING.search(text):
        return False  # both ways give the same rows
    rows, violation = _parse_quoted(text)
    if violation is not None:
        evidence = _enclosed_line(text)
        if evidence:
            raise _ambiguous(
                path, f"line {evidence} has quotation marks around a field, line {violation} inside of one"
            )
        return False
    fields = [field for row in rows for field in row if field[0].startswith('"')]
    widths = [1 + line.count("\t") for line in split_lines(text)]
    if any(_shows_quoting(field, widths, len(rows[0])) for field in fields) or _encloses_columns(rows):
        return True
    raise _ambiguous(path, f"line {fields[0][1]} has quotation marks around a field, which may belong to the text")


def _ambiguous(path: str, reason: str) -> UserError:
    return UserError(
        f"{path} {reason}; say csv({path!r}, quotes=False) where they are characters, or quotes=True where they "
        "enclose fields."
    )


def _parse_quoted(text: str) -> tuple[list[list[_Field]], int | None]:
    """Parses a text with enclosed fields; returns the rows, and the first line that breaks the rules of quoting."""
    rows: list[list[_Field]] = [[]]
    position, line = 0, 1
    while position < len(text):
        match = _FIELD.match(text, position)
        if match is None:
            return rows, line
        field, end = match.groups()
        rows[-1].append((field, line))
        position = match.end()
        line += line_number(field, len(field)) - 1
        if end and end != "\t":
            rows.append([])
            line += 1
    return [row for row in rows if row and row != [("", row[0][1])]], None


def _shows_quoting(field: _Field, widths: Sequence[int], width: int) -> bool:
    """Returns whether an enclosed field proves that the file quotes fields.

    Args:
      field: the field with its quotation marks.
      widths: the number of tabs plus one, for each line of the file.
      width: the number of columns.
    """
    value, line = field
    inside = value[1:-1]
    if '""' in inside:
        return True
    if not re.search(r"[\t\r\n]", inside):
        return False
    # Of the lines of one row at most one looks complete. Two complete lines are two rows, each with one mark.
    lines = widths[line - 1 : line + line_number(inside, len(inside)) - 1]
    return lines.count(width) <= (len(lines) > 1)


def _encloses_columns(rows: Sequence[Sequence[_Field]]) -> bool:
    """Returns whether every column with enclosed fields has only enclosed and empty ones (besides its name)."""
    first, *body = ([value for value, _ in row] for row in rows)
    enclosed = {index for row in body for index, value in enumerate(row) if value.startswith('"')}
    if not enclosed:
        return all(value.startswith('"') for value in first)
    return all(value.startswith('"') or not value for row in body for i, value in enumerate(row) if i in enclosed)


def _enclosed_line(text: str) -> int | None:
    """Returns the first line with a field that must be enclosed, if there is one."""
    lines = [line.split("\t") for line in split_lines(text)]
    for number, fields in enumerate(lines, 1):
        if any(_DOUBLED.fullmatch(field) for field in fields):
            return number
    for column in zip(*(fields for fields in lines[1:] if fields != [""])):
        if all(len(field) > 1 and field[0] == field[-1] == '"' for field in column):
            return 2
    return None
