"""Text with labels in comma- or tab-separated files."""

from __future__ import annotations

import csv as csv_module
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Sequence
from typing import ClassVar

from estimator_tl.errors import UserError, check_known, nearest
from estimator_tl.inputs.source import BAD_EXAMPLE_POLICIES, DataSource, registry
from estimator_tl.inputs.splits import check_fractions
from estimator_tl.specs import DATA_RULES


@dataclasses.dataclass(frozen=True)
class TextTable(DataSource):
    """A table with a text and a label in each row; see `DataSource` for the attributes.

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
        # The text is its own name, so that the same text twice never stands on both sides of a split.
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
) -> TextTable:
    """Reads a table of labelled texts, UTF-8.

    Args:
      path: the file.
      text: name of the text's column, or its number from 0.
      label: the same for the label.
      delimiter: between columns; a tab for ``.tsv`` and where the first line has one, a comma otherwise. Between tabs,
        quotation marks are characters like any other.
      header: whether the first row names the columns; by default, where both columns are named and it has their names.
      validation: share of the rows, chosen by hash of their text, in the validation part.
      test: the same for the test part.
      labels: the classes in order, where they are already known; those in the file, sorted, by default.
      on_bad_example: what to do with rows that have other columns than the first, or an empty text or label:
        ``error`` names the first, ``skip`` leaves them out.
      rules: the generation of rules by which tables are read, see `specs.DATA_RULES`.

    Raises:
      UserError: no such file or columns, fewer than two classes, a bad row.
    """
    check_fractions(validation, test)
    check_known("on_bad_example", on_bad_example, BAD_EXAMPLE_POLICIES)
    path = os.path.abspath(os.path.expanduser(path))
    rows = _rows(path, delimiter)
    columns, body = _columns(path, rows, text, label, header)
    good, bad = _good_rows(body, len(rows[0][1]), *columns)
    if bad and on_bad_example == "error":
        raise UserError(
            f"{path} line {bad[0][0]} {bad[0][1]} ({len(bad)} such rows); correct it, or use --on_bad_example=skip."
        )
    found = sorted({name for _, name in good})
    if labels is None and len(found) < 2:
        raise UserError(f"{path} holds {len(found)} classes ({', '.join(found)}); a classifier needs at least two.")
    known = tuple(labels if labels is not None else found)
    for name in found:
        if name not in known:
            raise UserError(f"{path} holds the class {name!r}, which the run does not know; {nearest(name, known)}")
    numbers = {name: number for number, name in enumerate(known)}
    texts = tuple((value, numbers[name]) for value, name in good)
    return TextTable(path, known, texts, validation, test, tuple(f"line {number}" for number, _ in bad))


def read_texts(
    path: str, text: str | int = "text", delimiter: str | None = None, header: bool | None = None
) -> list[str]:
    """Returns the texts of a table that may have no labels, or the lines of any other file.

    Raises:
      UserError: there is no such file or column.
    """
    path = os.path.abspath(os.path.expanduser(path))
    if not path.lower().endswith((".csv", ".tsv")):
        return [line for line in _lines(path) if line]
    rows = _rows(path, delimiter)
    (column, _), body = _columns(path, rows, text, text, header)
    return [row[column] for _, row in body if len(row) > column and row[column]]


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            return stream.read().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}); convert it, e.g. with iconv.") from error


def _rows(path: str, delimiter: str | None) -> list[tuple[int, list[str]]]:
    """Returns the rows that are not empty, with the numbers of their last lines."""
    lines = _lines(path)
    if not any(lines):
        raise UserError(f"{path} is empty; it needs a text and a label in each row.")
    first = next(line for line in lines if line)
    if delimiter is None:
        delimiter = "\t" if path.lower().endswith(".tsv") or "\t" in first else ","
    if len(delimiter) != 1:
        raise UserError(f"csv: delimiter={delimiter!r} must be one character, e.g. ',' or '\\t'.")
    if delimiter == "\t":
        return [(number, line.split("\t")) for number, line in enumerate(lines, 1) if line]
    reader = csv_module.reader((f"{line}\n" for line in lines), delimiter=delimiter)
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv_module.Error as error:
        raise UserError(
            f"{path} line {reader.line_num} cannot be read ({error}); correct its quotation marks."
        ) from error


def _columns(
    path: str, rows: Sequence[tuple[int, list[str]]], text: str | int, label: str | int, header: bool | None
) -> tuple[tuple[int, int], Sequence[tuple[int, list[str]]]]:
    """Returns the numbers of the two columns, and the rows below the header."""
    names = rows[0][1]
    wanted = (text, label)
    named = [column for column in wanted if isinstance(column, str)]
    if header is None:
        header = bool(named)
    if named and not header:
        raise UserError(f"csv: without a header columns are numbers from 0, not {named[0]!r}; e.g. text=1, label=0.")
    for column in wanted:
        if isinstance(column, str) and column not in names:
            raise UserError(
                f"{path} has no column {column!r} in its first row; {nearest(column, names)} Where it has no header, "
                "give numbers from 0, e.g. text=1, label=0."
            )
        if not isinstance(column, str) and not 0 <= column < len(names):
            raise UserError(f"{path} has {len(names)} columns, so {column} is none of them; count from 0.")
    first, second = (names.index(column) if isinstance(column, str) else column for column in wanted)
    return (first, second), list(itertools.islice(rows, int(header), None))


def _good_rows(
    rows: Sequence[tuple[int, list[str]]], width: int, text: int, label: int
) -> tuple[list[tuple[str, str]], list[tuple[int, str]]]:
    """Returns (text, label) of the rows in order, and (line, what is wrong) of the others."""
    good, bad = [], []
    for number, row in rows:
        if len(row) != width:
            bad.append((number, f"has {len(row)} columns, not {width}"))
        elif not row[text].strip() or not row[label].strip():
            bad.append((number, f"has no {'text' if not row[text].strip() else 'label'}"))
        else:
            good.append((row[text], row[label].strip()))
    return good, bad
