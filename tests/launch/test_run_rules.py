"""What a run decided when it began, its rules for data and its input range, is what later commands use."""

from __future__ import annotations

import json
import shutil
import types

import pytest

from estimator_tl.cli.main import main
from estimator_tl.config import ModelSpec
from estimator_tl.launch.run import run_dir, session
from estimator_tl.specs import DATA_RULES
from tests import runs
from tests.backbones.traced_modules import save_traces
from tests.launch.first_runs import make_first, settings

EARLIER = (
    "began under earlier rules and keeps them: image orientation and transparency are ignored, nested folders left "
    "out; train into another --model_dir for today's."
)


def test_a_run_stores_its_rules_and_its_range(hub_module, pictures, tmp_path):
    runs.train(tmp_path, hub_module, pictures, 1, "--input_range=-1,1")
    assert settings(tmp_path)["data"]["rules"] == DATA_RULES
    assert settings(tmp_path)["model"]["input_range"] == [-1.0, 1.0]
    runs.train(tmp_path, hub_module, pictures, 2)  # the range need not be said twice
    assert settings(tmp_path)["model"]["input_range"] == [-1.0, 1.0]
    assert session.open_run(str(tmp_path)).backbone.image_spec.range == (-1.0, 1.0)


def test_a_run_of_the_first_generation_keeps_its_rules(hub_module, pictures, tmp_path, capfd):
    runs.train(tmp_path, hub_module, pictures, 1)
    assert EARLIER not in capfd.readouterr().err
    make_first(tmp_path)
    opened = session.open_run(str(tmp_path))
    assert (opened.backbone.image_spec.rules, opened.backbone.image_spec.range) == (1, (0.0, 1.0))
    assert capfd.readouterr().err.count(f"{tmp_path} {EARLIER}") == 1
    runs.train(tmp_path, hub_module, pictures, 2)
    assert capfd.readouterr().err.count(f"{tmp_path} {EARLIER}") == 1
    assert settings(tmp_path)["data"]["rules"] == 1
    assert settings(tmp_path)["model"]["input_range"] == [0.0, 1.0]
    assert int(run_dir.read(str(tmp_path)).record["result"]["global_step"]) == 2


def test_a_warm_start_keeps_the_range(hub_module, pictures, tmp_path, capfd):
    first, second = tmp_path / "first", tmp_path / "second"
    runs.train(first, hub_module, pictures, 1, "--input_range=0,255")
    runs.train(second, hub_module, pictures, 1, f"--warm_start_from={first}", code=2)
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"error: {first} was trained on images in [0, 255], but this run feeds [0, 1]; give --input_range=0,255."
    )
    assert not second.exists()
    runs.train(second, hub_module, pictures, 1, f"--warm_start_from={first}", "--input_range=0,255")
    make_first(first)
    runs.train(tmp_path / "third", hub_module, pictures, 1, f"--warm_start_from={first}")


def test_text_runs_of_the_first_generation_open(text_module, tmp_path, capfd):
    assert session.open_backbone(ModelSpec(text_module.handle), rules=1).input_spec.key == "text"
    table = tmp_path / "t.csv"
    table.write_text("text,label\n" + "".join(f"some words {i},{'ab'[i % 2]}\n" for i in range(20)))
    runs.train(tmp_path / "run", text_module, f"csv('{table}', text='text', label='label')", 1)
    make_first(tmp_path / "run")
    session.open_run(str(tmp_path / "run"))
    assert (
        f"{tmp_path / 'run'} began under earlier rules and keeps them: tables are read and split as they were then; "
        "train into another --model_dir for today's."
    ) in capfd.readouterr().err


def test_class_names_of_the_first_generation_may_change_their_code_points(hub_module, pictures, tmp_path):
    """A folder that a Mac wrote (NFD) is the same class after a copy to Linux (NFC)."""
    root = tmp_path / "images"
    shutil.copytree(pictures, root)
    (root / "cat").rename(root / "cafe\u0301")
    runs.train(tmp_path / "run", hub_module, root, 1)
    make_first(tmp_path / "run")
    (root / "cafe\u0301").rename(root / "caf\u00e9")
    runs.train(tmp_path / "run", hub_module, root, 2)
    assert int(run_dir.read(str(tmp_path / "run")).record["result"]["global_step"]) == 2


def test_batch_norm_that_the_first_generation_did_not_move(tmp_path, pictures, capfd):
    """It took --batch_norm=train for a source without a training switch, and trained in inference mode."""
    source = types.SimpleNamespace(handle=save_traces(tmp_path / "module", False))
    model_dir = tmp_path / "run"
    runs.train(model_dir, source, pictures, 1, "--tuning=full")
    make_first(model_dir)
    record = json.loads((model_dir / "run.json").read_text())
    record["settings"]["model"]["batch_norm"] = "train"
    (model_dir / "run.json").write_text(json.dumps(record))
    said = "; batch norm stayed in inference mode, as the backbone was saved for inference only; train into"
    for command in (["evaluate", f"--eval_data={pictures}"], ["export"]):
        assert main([*command, f"--model_dir={model_dir}"]) == 0
        assert capfd.readouterr().err.count(said) == 1
    assert main(["inspect", f"--model_dir={model_dir}"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "the checkpoints agree with the plan"


@pytest.mark.parametrize(
    ("handle", "first"),
    [
        ("model.h5", (0.0, 1.0)),
        ("keras.MobileNetV3Small(weights=None)", None),
        ("keras.MobileNetV3Small(weights=None, include_preprocessing=False)", (0.0, 255.0)),
        ("text_encoder('x')", None),
    ],
)
def test_range_of_the_first_generation(handle, first):
    assert session._first_range(ModelSpec(handle)) == first
