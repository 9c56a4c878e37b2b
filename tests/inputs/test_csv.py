"""Tables of labelled texts."""

from __future__ import annotations

import pytest

from estimator_tl import inputs
from estimator_tl.errors import UserError
from estimator_tl.inputs.tables.csv_table import read_texts
from estimator_tl.specs import ImageSpec, TextSpec
from tests.tiny_text import write_table


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def rows(table):
    return [(text, table.labels[number]) for text, number in table.texts]


def test_named_columns_and_quotes(tmp_path):
    path = write(tmp_path / "t.csv", 'id,body,spam\n1,"a, ""b""",yes\n2,"two\nlines",no\n')
    table = inputs.csv(path, text="body", label="spam")
    assert table.labels == ("no", "yes")
    assert rows(table) == [('a, "b"', "yes"), ("two\nlines", "no")]


def test_tabs_without_header_keep_quotes_as_they_are(tmp_path):
    path = write(tmp_path / "t.txt", 'ham\tsay "hi\nspam\tä winner"\n')
    table = inputs.csv(path, text=1, label=0)
    assert rows(table) == [('say "hi', "ham"), ('ä winner"', "spam")]


def test_numbers_with_a_header(tmp_path):
    path = write(tmp_path / "t.tsv", "label\ttext\nham\ta\nspam\tb\n")
    assert rows(inputs.csv(path, text=1, label=0, header=True)) == [("a", "ham"), ("b", "spam")]
    assert rows(inputs.csv(path)) == [("a", "ham"), ("b", "spam")]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,x\nb,y\n", encoding="utf-8-sig")
    assert rows(inputs.csv(str(path))) == [("a", "x"), ("b", "y")]


def test_bad_rows_are_named_or_skipped(tmp_path):
    path = write(tmp_path / "t.tsv", "ham\tone\nbroken\nspam\ttwo\nham\t \n\nspam\tthree\n")
    with pytest.raises(UserError, match=r"t\.tsv line 2 has 1 columns, not 2 \(2 such rows\)"):
        inputs.csv(path, text=1, label=0)
    table = inputs.csv(path, text=1, label=0, on_bad_example="skip")
    assert [text for text, _ in table.texts] == ["one", "two", "three"]
    assert table.skipped == ("line 2", "line 4")


def test_equal_texts_are_on_one_side_of_a_split(tmp_path):
    lines = [f"{'ab'[n % 2]}\ttext {n // 4}" for n in range(400)]
    table = inputs.csv(write(tmp_path / "t.tsv", "\n".join(lines)), text=1, label=0, validation=0.3, test=0.2)
    parts = {part: set(table.examples(part).items) for part in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == 100
    assert len(table.examples("all")) == 400
    assert not parts["train"] & parts["validation"]
    assert 15 < len(parts["validation"]) < 45


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("", {}, "is empty"),
        ("text,label\n", {}, "holds 0 classes"),
        ("text,label\na,x\n", {}, r"holds 1 classes \(x\)"),
        ("text,label\na,x\nb,y\n", {"text": "txt"}, "no column 'txt' in its first row; did you mean 'text'"),
        ("a,x\nb,y\n", {"text": 0, "label": 5}, "has 2 columns, so 5 is none of them"),
        ("a,x\nb,y\n", {"header": False}, "columns are numbers from 0"),
        ("text,label\na,x\nb,y\n", {"labels": ("x", "z")}, "holds the class 'y', which the run does not know"),
        ("text,label\na,x\nb,y\n", {"delimiter": "::"}, "must be one character"),
        ("text,label\na,x\nb,y\n", {"validation": 1.5}, "validation_fraction"),
    ],
)
def test_refuses(tmp_path, content, arguments, message):
    with pytest.raises(UserError, match=message):
        inputs.csv(write(tmp_path / "t.csv", content), **arguments)


def test_refuses_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(UserError, match="cannot read .*nowhere.csv"):
        inputs.csv(str(tmp_path / "nowhere.csv"))
    (tmp_path / "latin.csv").write_bytes("text,label\nä,x\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        inputs.csv(str(tmp_path / "latin.csv"))


def test_input_fn_gives_strings_and_numbers(tmp_path):
    table = inputs.csv(str(write_table(tmp_path / "t.csv", rows=10)))
    features, labels = next(iter(table.input_fn(TextSpec(), 4)()))
    assert features["text"].numpy()[0].decode() == table.texts[0][0]
    assert labels.numpy().tolist() == [label for _, label in table.texts[:4]]
    seen = [f["text"].numpy().tolist() for f, _ in table.input_fn(TextSpec(), 5, training=True, epochs=1)()]
    assert sorted(text for batch in seen for text in batch) == sorted(text.encode() for text, _ in table.texts)
    with pytest.raises(UserError, match="holds text, but the backbone takes images"):
        table.input_fn(ImageSpec(8, 8, 3, lambda x: x, ""), 4)


def test_texts_to_predict(tmp_path):
    assert read_texts(write(tmp_path / "t.txt", "one\n\ntwo\n")) == ["one", "", "two"]
    assert read_texts(write(tmp_path / "t.csv", "id,text\n1,a\n2,b\n")) == ["a", "b"]
    assert read_texts(write(tmp_path / "u.csv", "x,a\ny,b\n"), text=1) == ["a", "b"]


def test_open_source_knows_tables_by_name_and_by_spec(tmp_path, pictures):
    path = write_table(tmp_path / "t.tsv", delimiter="\t")
    for text in (str(path), f"csv({str(path)!r})", f"csv({str(path)!r}, text=1, label=0, header=True)"):
        assert inputs.open_source(text).labels == ("car", "pet")
    assert inputs.open_source(str(pictures)).what == "images"
    with pytest.raises(UserError, match="unknown dataset 'cvs'; did you mean 'csv'"):
        inputs.open_source("cvs('t.csv')")
