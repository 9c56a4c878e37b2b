"""Headers, columns and names of classes in tables."""

from __future__ import annotations

import unicodedata

import pytest

from estimator_tl import inputs
from estimator_tl.errors import UserError
from estimator_tl.inputs.tables.csv_table import read_column

NFC, NFD = "café", unicodedata.normalize("NFD", "café")


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def labelled(table):
    return [(text, table.labels[number]) for text, number in table.texts]


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("label\ttext\nham\ta\nspam\tb\nham\tc\n", {"text": 1, "label": 0}),
        ("label\ttext\nham\ta\nham\tb\n", {"text": 1, "label": 0}),
        ("class\twords\nham\ta\nspam\tb\nham\tc\n", {"text": 1, "label": 0}),
        ("cls\twords\tn\nham\ta\t1\nspam\tb\t2\n", {"text": 1, "label": 0}),
    ],
)
def test_a_header_is_no_class(tmp_path, content, columns):
    path = write(tmp_path / "t.tsv", content)
    with pytest.raises(UserError) as caught:
        inputs.csv(path, **columns)
    first = ", ".join(map(repr, content.split("\n")[0].split("\t")))
    assert str(caught.value) == (
        f"{path} line 1 ({first}) may name the columns or be an example; say header=True or header=False."
    )
    assert len(inputs.csv(path, **columns, header=False).texts) == content.count("\n")


def test_a_header_of_data_whose_classes_are_known(tmp_path):
    path = write(tmp_path / "t.tsv", "klass\twords\nham\ta\nspam\tb\n")
    with pytest.raises(UserError, match="line 1 .* may name the columns"):
        inputs.csv(path, text=1, label=0, labels=("ham", "spam"))
    assert labelled(inputs.csv(path, text=1, label=0, labels=("ham", "spam"), header=True)) == [
        ("a", "ham"),
        ("b", "spam"),
    ]
    one = write(tmp_path / "u.tsv", "ham\ta\nspam\tb\nspam\tc\n")
    assert labelled(inputs.csv(one, text=1, label=0, labels=("ham", "spam", "other")))[0] == ("a", "ham")


def test_a_first_row_whose_class_stands_again_is_an_example(tmp_path):
    path = write(tmp_path / "t.tsv", "ham\ta\nspam\tb\neggs\tc\nham\td\n")
    assert len(inputs.csv(path, text=1, label=0).texts) == 4


def test_a_header_of_a_table_to_predict(tmp_path):
    for content in ("id,body\n7,a\n8,b\n", "x,Text\ny,a\n"):
        path = write(tmp_path / "t.csv", content)
        with pytest.raises(UserError, match="line 1 .* may name the columns or be an example"):
            read_column(path, text=1)
        assert read_column(path, text=1, header=True)[0] == "a"


def test_columns_of_one_name(tmp_path):
    path = write(tmp_path / "t.csv", "text,label,text\na,x,b\nc,y,d\n")
    with pytest.raises(UserError) as caught:
        inputs.csv(path)
    assert str(caught.value) == (
        f"{path} has 2 columns 'text' (numbers 0, 2, from 0); name one by its number with header=True, e.g. 0, or "
        "rename it."
    )
    assert labelled(inputs.csv(path, text=2, header=True)) == [("b", "x"), ("d", "y")]


def test_names_are_compared_without_spaces_and_composed(tmp_path):
    path = write(tmp_path / "t.csv", f"text, {NFD} \na,{NFC}\nb, {NFD}\nc,tea \nd, tea\n")
    table = inputs.csv(path, label=NFC)
    assert table.labels == (NFC, "tea")
    assert [label for _, label in labelled(table)] == [NFC, NFC, "tea", "tea"]
    assert inputs.csv(path, label=NFC, labels=("tea", NFD)).texts[0] == ("a", 1)


@pytest.mark.parametrize(("one", "other"), [("1", "1.0"), ("1", "01"), ("True", "TRUE"), ("false", "False")])
def test_classes_of_one_value_are_refused(tmp_path, one, other):
    path = write(tmp_path / "t.csv", f"text,label\na,{one}\nb,{other}\nc,0\n")
    with pytest.raises(UserError) as caught:
        inputs.csv(path)
    assert str(caught.value) == (
        f"{path} holds the classes '{one}' and '{other}', which are the same value; write them alike."
    )
    known = write(tmp_path / "u.csv", f"text,label\na,{other}\nb,0\n")
    with pytest.raises(UserError) as caught:
        inputs.csv(known, labels=("0", one))
    assert str(caught.value) == (
        f"{known} holds the class '{other}', which the run does not know; write it '{one}', as the run does."
    )


def test_numbers_and_truth_values_are_names(tmp_path):
    path = write(tmp_path / "t.csv", "text,label\na,1\nb,0\n")
    assert inputs.csv(path, labels=[0, 1]).texts == (("a", 1), ("b", 0))
    path = write(tmp_path / "t.csv", "text,label\na,True\nb,False\n")
    assert inputs.csv(path).labels == ("False", "True")


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ('text,label\na,"x\ny"\nb,z\n', {}, "holds the class 'x\\ny', which has a line end; a class is one line."),
        ("text,label\na,x\n", {"labels": ("x", "x")}, "labels=('x', 'x') must be a list of different names."),
        ("text,label\na,x\n", {"labels": "xy"}, "labels='xy' must be a list of different names."),
        ("text,label\n", {"labels": ("x", "y")}, "holds no rows below its header; it needs a text and a label in each"),
    ],
)
def test_refuses(tmp_path, content, arguments, message):
    with pytest.raises(UserError) as caught:
        inputs.csv(write(tmp_path / "t.csv", content), **arguments)
    assert message in str(caught.value)
