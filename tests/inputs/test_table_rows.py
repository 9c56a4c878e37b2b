"""Rows of tables: what ends a line, what separates columns, what quotation marks mean."""

from __future__ import annotations

import csv
import gzip
import io
import threading

import pytest

from estimator_tl import inputs
from estimator_tl.errors import UserError
from estimator_tl.inputs.tables.csv_table import read_column, read_texts

ODD = ["a\u2028b", "c\x85d", "e\x0cf", "g\x0bh", "i\u2029j", "k\x1cl", "  m ", "it's"]
QUOTED = ["with\ttab", 'he said "hi"', "two\nlines", '"all of it"', '"', "plain", "a, b"]


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return str(path)


def written(texts, delimiter=",", end="\n", quoting=csv.QUOTE_MINIMAL, header=True):
    """The table that Python's csv module, and with it pandas, writes."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting)
    if header:
        writer.writerow(["label", "text"])
    writer.writerows([["ham", "spam"][number % 2], text] for number, text in enumerate(texts))
    return stream.getvalue()


def texts_of(table):
    return [text for text, _ in table.texts]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t"), ("t.csv", ";"), ("t.txt", "|")])
def test_only_line_ends_end_a_row(tmp_path, name, delimiter, end):
    path = write(tmp_path / name, written(ODD, delimiter, end))
    table = inputs.open_source(path)
    assert texts_of(table) == ODD
    assert [label for _, label in table.texts] == [0, 1] * 4
    assert read_texts(path) == ODD


def test_lines_of_a_file_to_predict(tmp_path):
    assert read_texts(write(tmp_path / "t.txt", "\n".join([*ODD, "", "last"]))) == [*ODD, "", "last"]
    assert read_texts(write(tmp_path / "u.txt", "a\r\n\r\nb\r\n\r\n")) == ["a", "", "b", ""]
    with gzip.open(tmp_path / "v.TXT.GZ", "wt") as stream:
        stream.write("one\ntwo\n")
    assert read_texts(str(tmp_path / "v.TXT.GZ")) == ["one", "two"]


def test_line_ends_inside_of_quotation_marks_are_part_of_the_text(tmp_path):
    path = write(tmp_path / "t.csv", 'text,label\r\n"a\r\nb\nc\rd",x\r\n"",y\r\n\r\n"last",y\r\n')
    assert texts_of(inputs.csv(path, on_bad_example="skip")) == ["a\r\nb\nc\rd", "last"]
    with pytest.raises(UserError, match=r"t\.csv line 6 has no text \(1 such rows\)"):
        inputs.csv(path)
    assert read_texts(path) == ["a\r\nb\nc\rd", "", "last"]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize(("name", "delimiter"), [("t.tsv", "\t"), ("t.csv", ","), ("t.txt", "\t")])
def test_quoted_fields_as_pandas_writes_them(tmp_path, name, delimiter, quoting):
    path = write(tmp_path / name, written(QUOTED, delimiter, quoting=quoting))
    assert texts_of(inputs.open_source(path)) == QUOTED
    assert read_texts(path) == QUOTED
    bare = write(tmp_path / name, written(QUOTED, delimiter, quoting=quoting, header=False))
    assert read_column(bare, text=1) == QUOTED


def test_quotation_marks_between_tabs_that_are_characters(tmp_path):
    texts = ['"Hello" he said', '"Wait', 'say "hi', 'winner"', '"Are you coming?"', "plain"]
    path = write(tmp_path / "t.tsv", "".join(f"{'ab'[n % 2]}\t{text}\n" for n, text in enumerate(texts)))
    assert texts_of(inputs.csv(path, text=1, label=0)) == texts


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["plain", '"Are you coming?"', "plain"], "line 2 has quotation marks around a field, which may belong to "),
        (['"Wait', "plain", 'done"'], "line 1 has quotation marks around a field, which may belong to "),
        (['say "hi', '"he said ""hi"""'], "line 2 has quotation marks around a field, line 1 inside of one"),
    ],
)
def test_ambiguous_quotation_marks_between_tabs(tmp_path, lines, reason):
    path = write(tmp_path / "t.tsv", "".join(f"{'ab'[n % 2]}\t{text}\n" for n, text in enumerate(lines)))
    with pytest.raises(UserError) as caught:
        inputs.csv(path, text=1, label=0)
    assert reason in str(caught.value)
    assert "quotes=False" in str(caught.value)
    assert texts_of(inputs.csv(path, text=1, label=0, quotes=False)) == lines


def test_quotes_of_r_that_are_escaped_by_backslashes_are_ambiguous(tmp_path):
    path = write(tmp_path / "t.tsv", '"label"\t"text"\n"ham"\t"say \\"hi\\""\n"spam"\t"b"\n')
    with pytest.raises(UserError, match="line 2 has quotation marks around a field, line 2 inside of one"):
        inputs.csv(path)


@pytest.mark.parametrize(
    ("content", "line"),
    [('text,label\na,x\n"b,y\nc,x\n', 3), ('text,label\na,x\n"b" c,y\n', 3), ('sep=;\ntext;label\n"a;x\n', 3)],
)
def test_quotation_marks_that_do_not_match_are_named(tmp_path, content, line):
    with pytest.raises(UserError, match=rf"t\.csv line {line} cannot be read"):
        inputs.csv(write(tmp_path / "t.csv", content))


def test_a_delimiter_follows_from_all_first_rows(tmp_path):
    rows = "ham,hello\tyou; there\nspam,win | now\nham,well\nspam,a;b;c\n"
    expected = ["hello\tyou; there", "win | now", "well", "a;b;c"]
    for name in ("t.csv", "t.txt"):
        assert texts_of(inputs.csv(write(tmp_path / name, rows), text=1, label=0)) == expected
        assert texts_of(inputs.open_source(write(tmp_path / name, f"label,text\tx\n{rows}".replace("\tx", "")))) == (
            expected
        )
    semicolons = write(tmp_path / "u.csv", "ham;hello, you\nspam;win, now\nspam;no\n")
    assert texts_of(inputs.csv(semicolons, text=1, label=0)) == ["hello, you", "win, now", "no"]
    excel = write(tmp_path / "v.csv", "sep=;\r\nlabel;text\r\nham;a,b\r\nspam;c\r\n")
    assert texts_of(inputs.csv(excel)) == ["a,b", "c"]


def test_a_delimiter_that_is_not_certain_is_asked_for(tmp_path):
    path = write(tmp_path / "t.txt", "ham,a;b\nspam,c;d\n")
    with pytest.raises(UserError, match="may be separated by commas or semicolons; say which, e.g. csv.*delimiter="):
        inputs.csv(path, text=1, label=0)
    assert texts_of(inputs.csv(path, text=1, label=0, delimiter=",")) == ["a;b", "c;d"]


def test_long_fields(tmp_path):
    long = "word " * 60_000
    before = csv.field_size_limit()
    path = write(tmp_path / "t.csv", written([long, '"' + long, "short"]))
    assert texts_of(inputs.csv(path)) == [long, '"' + long, "short"]
    threads = [threading.Thread(target=inputs.csv, args=(path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert csv.field_size_limit() == before


def test_files_that_are_packed_or_in_utf16(tmp_path):
    table = written(ODD)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(table.encode()))
    (tmp_path / "t.TSV.GZ").write_bytes(gzip.compress(written(QUOTED, "\t").encode("utf-8-sig")))
    assert texts_of(inputs.open_source(str(tmp_path / "t.csv.gz"))) == ODD
    assert texts_of(inputs.open_source(str(tmp_path / "t.TSV.GZ"))) == QUOTED
    assert texts_of(inputs.open_source(write(tmp_path / "u.txt", written(ODD, "\t"), "utf-16"))) == ODD
    assert texts_of(inputs.open_source(write(tmp_path / "no_suffix", table, "utf-8-sig"))) == ODD
    assert read_texts(write(tmp_path / "v.csv", table, "utf-16")) == ODD


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04...", "is a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV UTF-8."),
        (b"\xff\xd8\xff\xe0", "is an image; give the folder that holds one subfolder a class."),
        (b"PAR1\0\0", "is a Parquet file; write it as CSV."),
        (gzip.compress(b"text,label\n", mtime=0)[:-6], "is a damaged gzip file"),
        ("text,label\na,x\n".encode("utf-16-le"), "line 1 holds a NUL character: it is not text, or is UTF-16 without"),
        (b"text,label\na,x\nb\0,y\n", "line 3 holds a NUL character"),
        (b"text,label\na,x\n\xe4,y\n", "line 3 is not UTF-8 (invalid continuation byte); convert it"),
        (b"text,label\na,x\n\xed\xa0\x80,y\n", "line 3 is not UTF-8"),
    ],
)
def test_an_existing_file_is_told_what_it_is(tmp_path, content, message):
    path = tmp_path / "t.data"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        inputs.open_source(str(path))
    assert f"{path} {message}" in str(caught.value)


def test_a_table_that_does_not_exist(tmp_path):
    for name in ("t.csv", "t.TSV", "t.csv.gz", "t.tab"):
        with pytest.raises(UserError, match=rf"cannot read {tmp_path}/{name} \(No such file or directory\)"):
            inputs.open_source(str(tmp_path / name))


def test_a_table_whose_name_says_nothing_is_found_by_its_header(tmp_path):
    assert read_texts(write(tmp_path / "t.txt", "label\ttext\nham\ta b\nspam\t\n")) == ["a b", ""]
    assert read_texts(write(tmp_path / "u.txt", "some text\nmore, text\n")) == ["some text", "more, text"]


def test_rows_that_a_table_to_predict_keeps(tmp_path):
    path = write(tmp_path / "t.csv", "id,text\n1,a\n2,\n3\n\n4,b,c\n5,d\n")
    assert read_texts(path) == ["a", "", "", "", "d"]
    assert read_column(write(tmp_path / "u.csv", 'text\n""\nb\n')) == ["", "b"]
