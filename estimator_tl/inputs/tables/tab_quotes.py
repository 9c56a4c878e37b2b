r"""Quotation marks between tabs: around a field, as pandas, R and Excel write them, or characters of the text.

A program that quotes encloses every field which holds a quotation mark, a tab or a line end, and doubles the marks
inside. So one mark inside of a field that is not enclosed shows that nothing in the file is quoted; a doubled mark, or
a tab or a line end that would break the rows, inside of an enclosed field shows that the file is. Where neither stands
in it, or both, the file is ambiguous.
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

#: A field as it stands in the file, and the number of its first line.
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
        return False  # both ways are the same
    rows, violation = _parsed(text)
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


def _parsed(text: str) -> tuple[list[list[_Field]], int | None]:
    """Returns the rows as a program that quotes would have written them, and the line that it would not have."""
    rows: list[list[_Field]] = [[]]
    place, line = 0, 1
    while place < len(text):
        match = _FIELD.match(text, place)
        if match is None:
            return rows, line
        field, end = match.groups()
        rows[-1].append((field, line))
        place = match.end()
        line += line_number(field, len(field)) - 1
        if end and end != "\t":
            rows.append([])
            line += 1
    return [row for row in rows if row and row != [("", row[0][1])]], None


def _shows_quoting(field: _Field, widths: Sequence[int], width: int) -> bool:
    """Returns whether an enclosed field would make no sense as it stands.

    Args:
      field: with its quotation marks.
      widths: for each line of the file one more than it has tabs.
      width: the number of columns.
    """
    value, line = field
    inside = value[1:-1]
    if '""' in inside:
        return True
    if not re.search(r"[\t\r\n]", inside):
        return False
    # A row that is broken into lines has one line at most that looks whole; two are two rows with a mark each.
    lines = widths[line - 1 : line + line_number(inside, len(inside)) - 1]
    return lines.count(width) <= (len(lines) > 1)


def _encloses_columns(rows: Sequence[Sequence[_Field]]) -> bool:
    """Returns whether each column that has enclosed fields has no others, but for its name and empty ones."""
    first, *body = ([value for value, _ in row] for row in rows)
    enclosed = {index for row in body for index, value in enumerate(row) if value.startswith('"')}
    if not enclosed:
        return all(value.startswith('"') for value in first)
    return all(value.startswith('"') or not value for row in body for i, value in enumerate(row) if i in enclosed)


def _enclosed_line(text: str) -> int | None:
    """Returns the first line with a field that a program which quotes has written, if there is one."""
    lines = [line.split("\t") for line in split_lines(text)]
    for number, fields in enumerate(lines, 1):
        if any(_DOUBLED.fullmatch(field) for field in fields):
            return number
    for column in zip(*(fields for fields in lines[1:] if fields != [""])):
        if all(len(field) > 1 and field[0] == field[-1] == '"' for field in column):
            return 2
    return None
