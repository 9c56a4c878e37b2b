"""Reads the text of a table's file: decompressed, decoded, and checked to be text."""

from __future__ import annotations

import codecs
import gzip
import os
import zlib

from estimator_tl.errors import UserError

TABLE_SUFFIXES = (".csv", ".tsv", ".tab")
TAB_SUFFIXES = (".tsv", ".tab")
_GZIP = b"\x1f\x8b"
# Kinds of files that are not text, by their first bytes. BM of a BMP image is not listed: a text may begin so.
_OTHER_KINDS = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; save the sheet as CSV UTF-8"),
    (b"PAR1", "a Parquet file; write it as CSV"),
    (b"SQLite format 3\0", "an SQLite database; write the rows as CSV"),
    (b"\xfd7zXZ\0", "an xz archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it"),
    (b"BZh91AY&SY", "a bzip2 archive; unpack it"),
    (b"%PDF", "a PDF document; give a table"),
    (b"\x89HDF", "an HDF5 file; write the rows as CSV"),
    (b"\xff\xd8\xff", "an image; give the folder that holds one subfolder a class"),
    (b"\x89PNG", "an image; give the folder that holds one subfolder a class"),
)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def suffix_of(path: str) -> str:
    """Returns the suffix of a file in lower case, without a final ``.gz``."""
    name = os.path.basename(path).lower()
    return os.path.splitext(name.removesuffix(".gz"))[1]


def is_named_like_table(path: str) -> bool:
    """Returns whether a file has the suffix of a table, compressed or not."""
    return suffix_of(path) in TABLE_SUFFIXES


def read_text(path: str) -> str:
    """Returns the text of a file, with its line ends unchanged.

    The file may be UTF-8, with or without a byte order mark, or UTF-16 with a byte order mark, as Excel writes it. It
    may be compressed by gzip.

    Raises:
      UserError: the file does not exist, cannot be read, or is not text.
    """
    data = _read_bytes(path)
    for beginning, kind in _OTHER_KINDS:
        if data.startswith(beginning):
            raise UserError(f"{path} is {kind}.")
    text = _decode(path, data)
    if "\0" in text:
        position = text.index("\0")
        hint = "it is not text, or is UTF-16 without a byte order mark; save it as UTF-8"
        raise UserError(f"{path} line {line_number(text, position)} holds a NUL character: {hint}.")
    return text


def split_lines(text: str) -> list[str]:
    r"""Returns the lines of a text; they end at ``\n``, ``\r\n`` and ``\r`` only.

    The last line needs no line end. `str.splitlines` also splits at U+2028, U+0085 and form feeds, which texts hold.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def line_number(text: str, position: int) -> int:
    """Returns the number, from 1, of the line that holds the character at an index."""
    before = text[:position]
    return 1 + before.count("\n") + before.count("\r") - before.count("\r\n")


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); check the path.") from error
    if not data.startswith(_GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}); compress or download it again.") from error


def _decode(path: str, data: bytes) -> str:
    encoding = "utf-8-sig"
    if data.startswith(_UTF16) and not data.startswith(codecs.BOM_UTF32_LE):
        encoding = "utf-16"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + data[: error.start].count(b"\n")
        name = encoding.upper().removesuffix("-SIG")
        raise UserError(
            f"{path} line {line} is not {name} ({error.reason}); convert it, e.g. with iconv -f WINDOWS-1252 -t UTF-8."
        ) from error
