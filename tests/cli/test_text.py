"""Text, from a table to an export, on the command line."""

from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pytest

from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from tests.checkpoints import checkpoint_values
from tests.launch.first_runs import make_first
from tests.tiny_text import write_table


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("table") / "texts.csv")


@pytest.fixture(scope="module")
def trained(text_module, table, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("run") / "model"
    flags = {
        "backbone": text_module.handle,
        "train_data": table,
        "model_dir": model_dir,
        "tuning": "linear_probe_then_full(20)",
        "train_steps": 60,
        "save_checkpoints_steps": 20,
        "batch_size": 8,
        "learning_rate": 0.1,
    }
    assert main(["train", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    return model_dir


def test_training_moves_the_vectors_in_their_phase_only(trained, text_module):
    before, after = (checkpoint_values(trained / f"model.ckpt-{step}") for step in (20, 60))
    np.testing.assert_array_equal(before["embeddings"], text_module.values["embeddings"])
    assert not np.array_equal(after["embeddings"], before["embeddings"])


def test_evaluate_predict_and_export_agree(trained, table, tmp_path, capsys):
    assert main(["evaluate", f"--model_dir={trained}"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"] > 0.9
    texts = ["the fur and the paw", "motor and brake", "zebra"]
    (tmp_path / "new.txt").write_text("".join(f"{text}\n" for text in texts))
    assert main(["predict", f"--model_dir={trained}", f"--input={tmp_path / 'new.txt'}"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == texts
    assert [line["class"] for line in lines[:2]] == ["pet", "car"]
    assert main(["export", f"--model_dir={trained}", f"--export_dir={tmp_path / 'served'}"]) == 0
    signature = tf.saved_model.load(capsys.readouterr().out.splitlines()[-1]).signatures["serving_default"]
    assert signature.structured_input_signature[1]["text"].shape.as_list() == [None]
    served = signature(text=tf.constant(texts))
    assert served["classes"].numpy()[:, 0].tolist() == [line["class"].encode() for line in lines]
    np.testing.assert_allclose(served["probabilities"], [list(line["scores"].values()) for line in lines], atol=2e-6)


def test_predict_a_column_of_a_table(trained, table, capsys):
    assert main(["predict", f"--model_dir={trained}", f"--input=csv({str(table)!r}, text='text')", "--format=csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "text,class,score,car,pet"
    assert len(lines) == 61


def test_predict_answers_each_row_in_order(trained, tmp_path, capsys):
    rows = ["the fur", "", "motor\u2028brake \x85 and", "  ", "the paw"]
    lines, table = tmp_path / "new.txt", tmp_path / "new.csv"
    lines.write_text("".join(f"{row}\n" for row in rows))
    table.write_text("id,text\n" + "".join(f"{number},{row}\n" for number, row in enumerate(rows)) + "5\n")
    assert main(["predict", f"--model_dir={trained}", str(lines), str(table)]) == 0
    shown = capsys.readouterr()
    answers = [json.loads(line) for line in shown.out.splitlines()]
    assert [answer["text"] for answer in answers] == [*rows, *rows, ""]
    nothing = {"class": None, "score": None, "scores": {"car": None, "pet": None}}
    for number in (1, 3, 6, 8, 10):
        assert answers[number] == {"text": ([*rows, *rows, ""])[number], **nothing}
    assert [answers[number]["class"] for number in (0, 2, 4)] == ["pet", "car", "pet"]
    assert answers[5:10] == answers[:5]
    assert (
        f"{lines}: 2 of 5 rows have no text, or other columns than the first; their answers are null (first: row 2)"
        in (shown.err)
    )
    assert main(["predict", f"--model_dir={trained}", f"--input={lines}", "--format=csv"]) == 0
    parsed = list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))
    assert [row[0] for row in parsed[1:]] == rows
    assert parsed[2] == ["", "", "", "", ""]


def test_a_run_of_the_first_rules_keeps_the_quotes_between_tabs(trained, tmp_path, capsys):
    earlier = tmp_path / "run"
    shutil.copytree(trained, earlier)
    make_first(earlier)
    table = tmp_path / "new.tsv"
    table.write_text('id\ttext\n1\t"the ""fur"""\n2\t\n3\tmotor\n')
    texts = {}
    for model_dir in (trained, earlier):
        assert main(["predict", f"--model_dir={model_dir}", f"--input={table}"]) == 0
        texts[model_dir] = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert texts == {trained: ['the "fur"', "", "motor"], earlier: ['"the ""fur"""', "", "motor"]}


def test_predict_where_no_row_has_a_text(trained, tmp_path, capsys):
    (tmp_path / "new.txt").write_text("\n\n")
    assert main(["predict", f"--model_dir={trained}", f"--input={tmp_path / 'new.txt'}"]) == 0
    assert [json.loads(line)["class"] for line in capsys.readouterr().out.splitlines()] == [None, None]
    (tmp_path / "new.txt").write_text("")
    assert main(["predict", f"--model_dir={trained}", f"--input={tmp_path / 'new.txt'}"]) == 2
    assert "the input holds no text" in capsys.readouterr().err


def test_data_to_evaluate_on_without_a_row(trained, text_module, table, tmp_path, capsys):
    (tmp_path / "none.csv").write_text("text,label\n")
    message = f"error: {tmp_path}/none.csv holds no rows below its header; it needs a text and a label in each row.\n"
    flags = [f"--backbone={text_module.handle}", f"--train_data={table}", f"--model_dir={tmp_path / 'run'}"]
    assert main(["train", *flags, f"--eval_data={tmp_path / 'none.csv'}"]) == 2
    assert capsys.readouterr().err.endswith(message)
    assert not (tmp_path / "run").exists()
    assert main(["evaluate", f"--model_dir={trained}", f"--eval_data={tmp_path / 'none.csv'}"]) == 2
    assert capsys.readouterr().err.endswith(message)


def test_inspect(trained, text_module, capsys):
    assert main(["inspect", f"--backbone={text_module.handle}"]) == 0
    assert "input          text, UTF-8 strings" in capsys.readouterr().out
    assert main(["inspect", f"--model_dir={trained}"]) == 0
    assert capsys.readouterr().out.endswith("the checkpoints agree with the plan\n")


def test_pictures_for_a_text_source_and_the_reverse(text_module, hub_module, table, pictures, tmp_path, capsys):
    for source, data, message in (
        (text_module, pictures, "holds images, but the backbone takes text"),
        (hub_module, table, "holds text, but the backbone takes images"),
    ):
        code = main(["train", f"--backbone={source.handle}", f"--train_data={data}", f"--model_dir={tmp_path / 'run'}"])
        assert code == 2
        assert message in capsys.readouterr().err
    flags = [f"--backbone={text_module.handle}", f"--train_data={table}", f"--model_dir={tmp_path / 'run'}"]
    assert main(["train", *flags, "--image_size=8"]) == 2
    assert "takes text, so image_size does not apply" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
