"""Text with labels in tables: comma-, semicolon- or tab-separated files."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from estimator_tl.errors import UserError, check_known
from estimator_tl.inputs.source import DataSource, registry
from estimator_tl.inputs.splits import check_fractions
from estimator_tl.inputs.tables import first_rules as first_tables
from estimator_tl.inputs.tables.classes import check_alike, class_numbers, known_classes
from estimator_tl.inputs.tables.columns import check_no_header, check_no_names, check_unique, find_columns, has_header
from estimator_tl.inputs.tables.file import is_named_like_table, read_text, split_lines
from estimator_tl.inputs.tables.rows import Column, Row, column_names, names_columns, read_rows, same_name
from estimator_tl.specs import BAD_EXAMPLE_POLICIES, DATA_RULES

_FIRST_RULES = 1


@dataclasses.dataclass(frozen=True)
class TextTable(DataSource):
    """A table with a text and a label in each row; see `DataSource` for the other attributes.

    Attributes:
      texts: (text, class number) for each row.
    """

    what: ClassVar[str] = "text"
    root: str
    labels: tuple[str, ...]
    texts: tuple[tuple[str, int], ...]
    validation: float = 0.0
    test: float = 0.0
    skipped: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, str, int]]:
        # The text serves as the name, so that equal texts are always in the same part.
        return [(text, text, label) for text, label in self.texts]

    def digest(self) -> str:
        listing = hashlib.sha256()
        for text, label in self.texts:
            listing.update(f"{label}\0{text}\0".encode())
        return f"sha256:{listing.hexdigest()}"


@registry.register()
def csv(
    path: str,
    text: str | int = "text",
    label: str | int = "label",
    delimiter: str | None = None,
    header: bool | None = None,
    validation: float = 0.0,
    test: float = 0.0,
    labels: Sequence[str] | None = None,
    on_bad_example: str = "error",
    rules: int = DATA_RULES,
    quotes: bool | None = None,
) -> TextTable:
    r"""Reads a table of labelled texts.

    The file is UTF-8, or UTF-16 with a byte order mark, and may be compressed by gzip. Rows end at ``\n``, ``\r\n`` or
    ``\r`` outside of quotation marks. Blank lines are skipped. A line ``sep=;`` before the first row sets the
    delimiter.

    Args:
      path: the file.
      text: name of the text's column, or its number from 0.
      label: the same for the label. Labels are compared without outer spaces, and in composed form (NFC).
      delimiter: the character between columns; by default the one that gives the wanted columns, and rows of equal
        width.
      header: whether the first row names the columns; by default yes where `text` or `label` is a name.
      validation: share of the rows in the validation part, chosen by hash of their text.
      test: the same for the test part.
      labels: the classes in order, where they are already known; by default the classes in the file, sorted.
      on_bad_example: what to do with rows that have more or fewer columns than the first, or an empty text or label:
        ``error`` refuses the file and names the first such row, ``skip`` leaves them out.
      rules: the generation of rules by which tables are read, see `specs.DATA_RULES`.
      quotes: whether quotation marks enclose fields and are doubled inside; by default yes, but in a tab-separated file
        only if the file shows that it is written so.

    Raises:
      UserError: there is no such file or column; the file can be read in two ways; the file has fewer than two
        classes, a class that is not in `labels`, or a bad row.

    Example:
      >>> data = etl.inputs.csv("reviews.csv", text="review", label="opinion")
      >>> len(data), data.labels
      (20, ('bad', 'good'))
    """
    check_fractions(validation, test)
    check_known("on_bad_example", on_bad_example, BAD_EXAMPLE_POLICIES)
    path = os.path.abspath(os.path.expanduser(path))
    first_rules = rules == _FIRST_RULES
    table = _open_table(path, (text, label), delimiter, header, quotes, first_rules)
    good, bad = _good_rows(table)
    if bad and on_bad_example == "error":
        raise UserError(
            f"{path} line {bad[0][0]} {bad[0][1]} ({len(bad)} such rows); correct it, or use --on_bad_example=skip."
        )
    text_column, label_column = table.columns
    names = [row[label_column].strip() for _, row in good]
    run_classes = None if labels is None else tuple(labels)
    if not first_rules:
        names = [same_name(name) for name in names]
        if labels is not None:
            run_classes = known_classes(labels)
        if table.may_have_header and good and good[0] is table.rows[0]:
            check_no_header(path, good, text_column, label_column, run_classes)
        check_alike(path, names)
    classes, numbers = class_numbers(path, names, run_classes)
    texts = tuple((row[text_column], number) for (_, row), number in zip(good, numbers))
    return TextTable(path, classes, texts, validation, test, tuple(f"line {number}" for number, _ in bad))


def read_texts(
    path: str,
    text: str | int = "text",
    delimiter: str | None = None,
    header: bool | None = None,
    rules: int = DATA_RULES,
) -> list[str]:
    """Returns the texts of a table, with or without labels, or the lines of any other file, in order.

    A file is a table if it has the suffix of a table, or if its first line names several columns and `text` is one of
    them. In any other file each line is a text, even an empty line; the last line needs no line end.

    Args:
      path: the file; see `csv` for all arguments.
      text: name of the text's column, or its number from 0.
      delimiter: the character between columns.
      header: whether the first row names the columns.
      rules: the generation of rules by which tables are read.

    Raises:
      UserError: there is no such file or column, or the file can be read in two ways.
    """
    path = os.path.abspath(os.path.expanduser(path))
    if is_named_like_table(path) or names_columns(read_text(path), str(text)):
        return read_column(path, text, delimiter, header, rules=rules)
    return split_lines(read_text(path))


def read_column(
    path: str,
    text: str | int = "text",
    delimiter: str | None = None,
    header: bool | None = None,
    quotes: bool | None = None,
    rules: int = DATA_RULES,
) -> list[str]:
    """Returns the texts of a table, with or without labels, one for each row and in order.

    Blank lines are skipped, as in pandas and `csv.DictReader`. A row without a text, or with more or fewer columns than
    the first, gives an empty string.

    Args:
      path: the file; see `csv` for all arguments.
      text: name of the text's column, or its number from 0.
      delimiter: the character between columns.
      header: whether the first row names the columns.
      quotes: whether quotation marks enclose fields.
      rules: the generation of rules by which tables are read.

    Raises:
      UserError: there is no such file or column, or the file can be read in two ways.
    """
    path = os.path.abspath(os.path.expanduser(path))
    table = _open_table(path, (text,), delimiter, header, quotes, rules == _FIRST_RULES)
    (column,) = table.columns
    whole = [row for row in table.rows if len(row[1]) == table.width]
    if table.may_have_header and rules != _FIRST_RULES and whole[:1] == table.rows[:1]:
        check_no_names(path, whole, column)
    return [row[column] if len(row) == table.width else "" for _, row in table.rows]


class _Table(NamedTuple):
    """Rows below the header.

    Attributes:
      rows: (line number, fields) for each row.
      columns: the numbers of the columns that are needed.
      width: the number of columns.
      may_have_header: whether it is still unknown if the first row names the columns.
    """

    rows: list[Row]
    columns: list[int]
    width: int
    may_have_header: bool


def _open_table(
    path: str,
    column_specs: Sequence[Column],
    delimiter: str | None,
    header: bool | None,
    quotes: bool | None,
    first_rules: bool,
) -> _Table:
    starts_with_names = has_header(column_specs, header)
    if first_rules:
        rows = first_tables.read_rows(path, delimiter)
        names = rows[0][1]
    else:
        column_specs = [same_name(column) if isinstance(column, str) else column for column in column_specs]
        rows = read_rows(path, column_specs, delimiter, quotes)
        names = column_names(rows[0][1])
        check_unique(path, names, column_specs)
    columns = find_columns(path, names, column_specs)
    if starts_with_names:
        return _Table(rows[1:], columns, len(names), may_have_header=False)
    return _Table(rows, columns, len(names), may_have_header=header is None)


def _good_rows(table: _Table) -> tuple[list[Row], list[tuple[int, str]]]:
    """Returns the rows with a text and a label, in order, and (line number, fault) for each other row."""
    good: list[Row] = []
    bad = []
    text, label = table.columns
    for item in table.rows:
        number, row = item
        if len(row) != table.width:
            bad.append((number, f"has {len(row)} columns, not {table.width}"))
        elif not row[text].strip():
            bad.append((number, "has no text"))
        elif not row[label].strip():
            bad.append((number, "has no label"))
        else:
            good.append(item)
    return good, bad
