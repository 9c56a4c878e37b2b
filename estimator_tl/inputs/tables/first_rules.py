"""Reads tables by the first generation of rules, for runs that began with it; see `specs.DATA_RULES`.

`str.splitlines` splits the lines; quotation marks between tabs are ordinary characters; a tab in the first line makes
a table tab-separated; and names of classes are compared character by character.
"""

from __future__ import annotations

import csv
import os

from estimator_tl.errors import UserError


def read_rows(path: str, delimiter: str | None) -> list[tuple[int, list[str]]]:
    """Returns the rows that are not empty, each with the number of its last line.

    Raises:
      UserError: the file cannot be read, is empty, or has quotation marks that do not match.
    """
    lines = _lines(path)
    if not any(lines):
        raise UserError(f"{path} is empty; it needs a text and a label in each row.")
    first = next(line for line in lines if line)
    if delimiter is None:
        has_tabs = path.lower().endswith(".tsv") or "\t" in first
        delimiter = "\t" if has_tabs else ","
    if len(delimiter) != 1:
        raise UserError(f"csv: delimiter={delimiter!r} must be one character, e.g. ',' or '\\t'.")
    if delimiter == "\t":
        return [(number, line.split("\t")) for number, line in enumerate(lines, 1) if line]
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter)
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise UserError(
            f"{path} line {reader.line_num} cannot be read ({error}); correct its quotation marks."
        ) from error


def _lines(path: str) -> list[str]:
    try:
        with open(os.path.expanduser(path), encoding="utf-8-sig", newline="") as stream:
            return stream.read().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}); convert it, e.g. with iconv.") from error
