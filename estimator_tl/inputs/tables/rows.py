"""Reads the rows of a table: finds its line ends, its delimiter and the meaning of its quotation marks."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Union

from estimator_tl.errors import UserError
from estimator_tl.inputs.tables.file import TAB_SUFFIXES, TABLE_SUFFIXES, read_text, split_lines, suffix_of
from estimator_tl.inputs.tables.tab_quotes import has_quoted_fields

#: The number, from 1, of a row's first line, and its fields.
Row = tuple[int, list[str]]
#: A column, by its name or its number from 0.
Column = Union[str, int]

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_SAMPLE = 100  # how many rows decide about the delimiter
_DIRECTIVE = re.compile(r'"?sep=(.)"?(?:\r\n|\r|\n)', re.IGNORECASE)  # Excel's first line that names the delimiter
_FIELD_LIMIT = threading.Lock()


def read_rows(path: str, columns: Sequence[Column], delimiter: str | None, quotes: bool | None) -> list[Row]:
    """Returns the rows of a table without its blank lines.

    Args:
      path: the file.
      columns: the columns that are needed; they help to find the delimiter.
      delimiter: the character between columns; None to find it.
      quotes: whether quotation marks enclose fields; None for yes, but in a tab-separated file for
        `has_quoted_fields`.

    Raises:
      UserError: the file cannot be read, is empty, or can be read in more than one way.
    """
    text, skipped = read_text(path), 0
    directive = _DIRECTIVE.match(text)
    if directive and delimiter in (None, directive[1]):
        delimiter, text, skipped = directive[1], text[directive.end() :], 1
    if not text.strip():
        raise UserError(f"{path} is empty; it needs a text and a label in each row.")
    if delimiter is None:
        delimiter = _find_delimiter(path, text, columns)
    if len(delimiter) != 1 or delimiter in '\r\n"':
        raise UserError(f"csv: delimiter={delimiter!r} must be one character, e.g. ',' or '\\t'.")
    if quotes is None:
        quotes = delimiter != "\t" or has_quoted_fields(path, text)
    rows: Iterable[Row] = _plain_rows(text, delimiter)
    if quotes:
        rows = _quoted_rows(path, text, delimiter, skipped)
    return [(number + skipped, row) for number, row in rows]


def same_name(name: str) -> str:
    """Returns the form in which names of columns and classes are compared: composed (NFC), without outer spaces."""
    return unicodedata.normalize("NFC", name.strip())


def column_names(row: Sequence[str]) -> list[str]:
    """Returns the names in a header row."""
    return [same_name(name) for name in row]


def names_columns(text: str, name: str) -> bool:
    """Returns whether the first line of a text names several columns, one of them `name`."""
    first = split_lines(text)[:1]
    rows = [[field.strip('"') for field in column_names(line.split(char))] for line in first for char in _DELIMITERS]
    return any(len(row) > 1 and name in row for row in rows)


def _plain_rows(text: str, delimiter: str) -> Iterator[Row]:
    return ((number, line.split(delimiter)) for number, line in enumerate(split_lines(text), 1) if line)


def _quoted_rows(path: str, text: str, delimiter: str, skipped: int) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, begin = [], 1
    try:
        with _any_field_size(text):
            for row in reader:
                if row:
                    rows.append((begin, row))
                begin = reader.line_num + 1
    except csv.Error as error:
        reason = str(error)
        if "unexpected end" in reason:
            reason = "a quotation mark is never closed"
        raise UserError(
            f"{path} line {begin + skipped} cannot be read ({reason}); write a field with quotation marks as "
            '"He said ""hi""", or give quotes=False where they are ordinary characters.'
        ) from error
    return rows


@contextlib.contextmanager
def _any_field_size(text: str) -> Iterator[None]:
    """A block in which the csv module's field size limit, which is global, admits any field of the text."""
    with _FIELD_LIMIT:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, len(text)))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _find_delimiter(path: str, text: str, columns: Sequence[Column]) -> str:
    """Returns the delimiter that gives the first row all columns, and most rows the width of the first.

    Of two equally good delimiters, the file's suffix decides; then tab wins, because texts rarely hold tabs.

    Raises:
      UserError: several delimiters are equally good, and neither rule decides.
    """
    suffix = suffix_of(path)
    usual = "\t" if suffix in TAB_SUFFIXES else ","
    candidates = {char: widths for char in _DELIMITERS for widths in [_widths(text, char, columns)] if widths}
    candidates = {char: widths for char, widths in candidates.items() if widths[0] > 1} or candidates
    even_share = {char: widths.count(widths[0]) / len(widths) for char, widths in candidates.items()}
    best = [char for char, share in even_share.items() if share == max(even_share.values())]
    if not best or (usual in best and suffix in TABLE_SUFFIXES):
        return usual
    if "\t" in best:
        return "\t"
    if len(best) == 1:
        return best[0]
    raise UserError(
        f"{path} may be separated by {_DELIMITERS[best[0]]} or {_DELIMITERS[best[1]]}; say which, e.g. "
        f"csv({path!r}, delimiter={best[0]!r})."
    )


def _widths(text: str, delimiter: str, columns: Sequence[Column]) -> list[int]:
    """Returns the number of fields in each of the first rows; an empty list if the first row lacks a column."""
    rows = _sample(text, delimiter)
    names = column_names([name.strip('"') for name in rows[0]])
    for column in columns:
        is_missing = column not in names if isinstance(column, str) else column >= len(names)
        if is_missing:
            return []
    return [len(row) for row in rows]


def _sample(text: str, delimiter: str) -> list[list[str]]:
    if delimiter == "\t":
        return [row for _, row in itertools.islice(_plain_rows(text, delimiter), _SAMPLE)]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    with _any_field_size(text):
        return list(itertools.islice((row for row in reader if row), _SAMPLE))
