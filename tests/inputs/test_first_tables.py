"""Tables of runs that began under the first generation of rules are read as they were."""

from __future__ import annotations

import unicodedata

import pytest

from estimator_tl import inputs
from estimator_tl.errors import UserError
from estimator_tl.inputs.tables.csv_table import read_column


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_first_rules(tmp_path):
    quoted = write(tmp_path / "t.tsv", 'label\ttext\nham\t"say ""hi"""\nspam\tb\n')
    assert [text for text, _ in inputs.csv(quoted, rules=1).texts] == ['"say ""hi"""', "b"]
    assert [text for text, _ in inputs.csv(quoted).texts] == ['say "hi"', "b"]
    assert read_column(quoted, rules=1) == ['"say ""hi"""', "b"]
    parted = write(tmp_path / "t.csv", "text,label\na\x85b,x\nc,y\n")
    with pytest.raises(UserError, match="line 2 has 1 columns"):
        inputs.open_source(parted, rules=1)
    assert inputs.csv(parted, rules=1, on_bad_example="skip").texts == (("b", 0), ("c", 1))
    composed = unicodedata.normalize("NFD", "é")
    names = write(tmp_path / "u.csv", f"text,label\na,é\nb,{composed}\nc,1\nd,1.0\n")
    assert inputs.csv(names, rules=1).labels == tuple(sorted(("é", composed, "1", "1.0")))
    header = write(tmp_path / "v.tsv", "label\ttext\nham\ta\nspam\tb\nspam\tc\n")
    assert inputs.csv(header, text=1, label=0, rules=1).labels == ("ham", "label", "spam")
    tab = write(tmp_path / "w.csv", "ham\tb,c\nspam\td,e\n")
    assert inputs.csv(tab, text=1, label=0, rules=1).labels == ("ham", "spam")
