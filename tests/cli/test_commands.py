"""The commands, run as a user runs them: train once, then use the run in every way."""

from __future__ import annotations

import base64
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from estimator_tl.cli.command import CommandFlags
from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from tests import tiny

CLASSIFY = """
import json, sys
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
encoded = [open(path, 'rb').read() for path in sys.argv[2:]]
result = loaded.signatures['serving_default'](image_bytes=tf.constant(encoded))
print(json.dumps({k: v.numpy().tolist() for k, v in result.items() if v.dtype != tf.string}))
print(json.dumps([[n.decode() for n in row] for row in result['classes'].numpy()]))
print(json.dumps([n.decode() for n in result['all_classes'].numpy()[0]]))
"""


@pytest.fixture(scope="module")
def trained(hub_module, pictures, tmp_path_factory):
    """A run directory made by `train`, with what it printed."""
    model_dir = tmp_path_factory.mktemp("run") / "model"
    code = main(
        [
            "train",
            f"--backbone={hub_module.handle}",
            f"--train_data={pictures}",
            f"--model_dir={model_dir}",
            "--tuning=last_groups(2)",
            "--train_steps=30",
            "--save_checkpoints_steps=15",
            "--batch_size=8",
            "--learning_rate=cosine(0.02)",
            "--validation_fraction=0.3",
            "--test_fraction=0.2",
        ]
    )
    assert code == 0
    return model_dir


def test_train_leaves_a_whole_run(trained, hub_module, pictures):
    record = json.loads((trained / "run.json").read_text())
    assert record["settings"]["model"]["backbone"] == hub_module.handle
    assert record["settings"]["data"]["train_data"] == str(pictures)
    assert record["versions"]["tensorflow"].split("+")[0].startswith(tf.__version__.split("-")[0])
    assert record["backbone_digest"].startswith("sha256:")
    assert record["result"]["global_step"] == record["total_steps"] == 30
    assert record["result"]["metrics"]["accuracy"] > 0.9
    assert (trained / "labels.txt").read_text().split() == ["cat", "dog", "owl"]
    assert tf.train.latest_checkpoint(str(trained)).endswith("model.ckpt-30")
    assert list(trained.glob("events.out.tfevents*"))
    assert list((trained / "eval").glob("events.out.tfevents*"))


def summaries(folder):
    tags = set()
    for path in folder.glob("events.out.tfevents*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    return tags


def test_summaries_for_tensorboard(trained):
    assert {"loss", "learning_rate"} <= summaries(trained)
    assert {"accuracy", "average_loss"} <= summaries(trained / "eval")


def test_flags_file_repeats_the_run(trained, tmp_path, capsys):
    again = tmp_path / "again"
    assert main(["train", f"--flagfile={trained}/flags.txt", f"--model_dir={again}"]) == 0
    first, second = (json.loads((d / "run.json").read_text()) for d in (trained, again))
    assert first["settings"] == second["settings"]
    assert first["result"]["metrics"] == second["result"]["metrics"]


def test_flags_file_holds_values_that_ran_over_lines():
    command = CommandFlags()
    command.string("Model", "tuning", "frozen", "what trains.")
    command.values(["train", "--tuning=phases(phase(frozen, 2),\n    full)"])
    assert command.text() == "--tuning=phases(phase(frozen, 2), full)\n"


def test_evaluate_prints_json_last(trained, capsys):
    assert main(["evaluate", f"--model_dir={trained}"]) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    recorded = json.loads((trained / "run.json").read_text())["result"]["metrics"]
    assert metrics["accuracy"] == pytest.approx(recorded["accuracy"])
    assert metrics["average_loss"] == pytest.approx(recorded["average_loss"], rel=1e-5)


def test_evaluate_parts_and_other_data(trained, pictures, capsys):
    sizes = {}
    for split in ("train", "validation", "test", "all"):
        assert main(["evaluate", f"--model_dir={trained}", f"--split={split}"]) == 0
        sizes[split] = json.loads(capsys.readouterr().out.splitlines()[-1])["examples"]
    assert sizes["train"] + sizes["validation"] + sizes["test"] == sizes["all"] == 30
    assert main(["evaluate", f"--model_dir={trained}", f"--eval_data={pictures}"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["examples"] == 30


def test_predict_json_lines(trained, pictures, capsys):
    assert main(["predict", f"--model_dir={trained}", f"--input={pictures}/dog/*.png"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["file"]).name for line in lines] == [f"{i:03d}.png" for i in range(10)]
    assert {line["class"] for line in lines} == {"dog"}
    for line in lines:
        assert set(line["scores"]) == {"cat", "dog", "owl"}
        assert line["score"] == max(line["scores"].values()) == line["scores"]["dog"]
        assert sum(line["scores"].values()) == pytest.approx(1, abs=1e-4)


def test_predict_refuses_what_is_no_picture(trained, tmp_path, capsys):
    (tmp_path / "bad.png").write_text("hello")
    for given, message in (
        ("/nowhere/*.png", "names no image"),
        (f"{tmp_path}/bad.png", "bad.png is not a readable"),
        (f"{tmp_path}/bad.png --on_bad_example=skip", "none of the input files is a readable image"),
    ):
        assert main(["predict", f"--model_dir={trained}", *f"--input={given}".split(" ")]) == 2
        printed = capsys.readouterr()
        assert message in printed.err.splitlines()[-1]
        assert not printed.out


def test_predict_csv_of_a_folder(trained, pictures, capsys):
    assert main(["predict", f"--model_dir={trained}", "--format=csv", str(pictures)]) == 0
    rows = list(csv.reader(capsys.readouterr().out.splitlines()))
    assert rows[0] == ["file", "class", "score", "cat", "dog", "owl"]
    assert len(rows) == 31
    assert np.mean([Path(row[0]).parent.name == row[1] for row in rows[1:]]) > 0.9


def test_export_serves_encoded_pictures_in_a_fresh_process(trained, pictures, tmp_path, capsys):
    from PIL import Image

    Image.open(pictures / "cat" / "000.png").resize((31, 17)).save(tmp_path / "other_size.jpg", quality=95)
    files = [str(pictures / "owl" / "001.png"), str(tmp_path / "other_size.jpg")]
    assert main(["export", f"--model_dir={trained}", f"--export_dir={tmp_path / 'served'}"]) == 0
    version = Path(capsys.readouterr().out.splitlines()[-1])
    assert version.parent == tmp_path / "served"
    assert version.name.isdigit()
    assert (version / "assets.extra" / "labels.txt").read_text() == "cat\ndog\nowl\n"
    done = subprocess.run(
        [sys.executable, "-c", CLASSIFY, str(version), *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    numbers, classes, every = map(json.loads, done.stdout.splitlines()[-3:])
    assert classes == [["owl"], ["cat"]]
    assert every == ["cat", "dog", "owl"]
    assert numbers["class_ids"] == [[2], [0]]
    assert main(["predict", f"--model_dir={trained}", f"--input={','.join(files)}"]) == 0
    predicted = {json.loads(line)["file"]: json.loads(line) for line in capsys.readouterr().out.splitlines()}
    for file, scores in zip(files, numbers["probabilities"]):
        np.testing.assert_allclose(scores, list(predicted[file]["scores"].values()), atol=2e-6)


def test_export_has_the_signatures_of_the_contract(trained, tmp_path):
    from estimator_tl.cli.export import export

    signatures = tf.saved_model.load(export(str(trained), str(tmp_path))).signatures
    assert set(signatures) == {"serving_default", "classify", "features"}
    (name, spec), *others = signatures["serving_default"].structured_input_signature[1].items()
    assert (name, spec.dtype, spec.shape.as_list(), others) == ("image_bytes", tf.string, [None], [])
    # A REST client's {"b64": ...} reaches the graph decoded, so the bytes themselves are what it takes.
    assert not [n for n in signatures["serving_default"].structured_outputs if n.endswith("_bytes")]
    assert base64.b64decode(base64.b64encode(b"x")) == b"x"


def test_inspect_backbone_and_dry_run(hub_module, capsys):
    assert main(["inspect", f"--backbone={hub_module.handle}", "--tuning=last_groups(1)", "--variables"]) == 0
    printed = capsys.readouterr().out
    assert "8x8x3, values [0, 1]" in printed
    states = {line.split()[0]: line.split()[1] for line in printed.splitlines() if line.startswith("  ")}
    assert states["top/conv2_bn/gamma"] == "train"
    assert states["top/conv2/kernel"] == states["stem/conv1/kernel"] == "frozen"
    assert "trainable params: 12 || all params: 364" in printed


def test_inspect_run(trained, capsys):
    assert main(["inspect", f"--model_dir={trained}"]) == 0
    printed = capsys.readouterr().out
    assert "at step 30 of 30" in printed
    assert "3: cat, dog, owl" in printed
    assert "tuning last_groups(2)" in printed


def test_going_on_where_a_run_stopped(hub_module, pictures, tmp_path, capsys):
    flags = [f"--backbone={hub_module.handle}", f"--train_data={pictures}", f"--model_dir={tmp_path}", "--epochs=1"]
    assert main(["train", *flags, "--batch_size=10"]) == 0
    steps = json.loads((tmp_path / "run.json").read_text())["result"]["global_step"]
    assert main(["train", *flags[:-1], "--batch_size=10", f"--train_steps={steps + 2}"]) == 0
    result = json.loads((tmp_path / "run.json").read_text())["result"]
    assert (result["global_step"], result["steps"]) == (steps + 2, 2)
    capsys.readouterr()
    assert main(["train", *flags[:-1], "--batch_size=10", f"--train_steps={steps}"]) == 0
    assert f"already at step {steps + 2}" in capsys.readouterr().err


def test_the_plan_is_printed_once_at_the_start(hub_module, pictures, tmp_path, capsys):
    flags = [f"--backbone={hub_module.handle}", f"--train_data={pictures}", f"--model_dir={tmp_path}"]
    assert main(["train", *flags, "--train_steps=2", "--save_checkpoints_steps=1"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("trainable params: 21 || all params: 385") == 1
    length, plan, *_ = printed.out.splitlines()
    assert length == "26 examples to train on, 0.8125 steps an epoch; from step 0 to 2"
    assert plan.startswith("tuning frozen")
    assert printed.err.count("evaluation at step") == 2
    assert "deprecated" not in printed.out + printed.err


def test_program_as_module_is_quiet(hub_module):
    done = subprocess.run(
        [sys.executable, "-m", "estimator_tl", "inspect", f"--backbone={hub_module.handle}"],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in __import__("os").environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"},
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert tiny.SIZE == 8
