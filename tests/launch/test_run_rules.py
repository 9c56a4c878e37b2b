"""What a run decided when it began, its rules for data and its input range, is what later commands use."""

from __future__ import annotations

import json

import pytest

from estimator_tl.config import ModelSpec
from estimator_tl.launch import run_dir, session
from estimator_tl.specs import DATA_RULES
from tests import runs

EARLIER = (
    "began under earlier rules and keeps them: image orientation and transparency are ignored, nested folders left "
    "out; train into another --model_dir for today's."
)


def settings(model_dir):
    return json.loads((model_dir / "run.json").read_text())["settings"]


def make_first(model_dir):
    """Takes out of run.json what runs of the first generation did not store."""
    record = json.loads((model_dir / "run.json").read_text())
    del record["settings"]["data"]["rules"]
    record["settings"]["model"]["input_range"] = None
    (model_dir / "run.json").write_text(json.dumps(record))


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


def test_text_runs_of_the_first_generation_open(text_module):
    assert session.open_backbone(ModelSpec(text_module.handle), rules=1).input_spec.key == "text"


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
