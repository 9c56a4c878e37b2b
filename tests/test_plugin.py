"""The plug-in of CONTRIBUTING.md: a package that adds a backbone, a policy, a head and a dataset by itself."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from estimator_tl import backbones, heads, inputs, tuning
from estimator_tl.cli.main import main
from tests.checkpoints import checkpoint_values

PLUGIN = Path(__file__).parent / "fixtures" / "plugin"
KERNEL = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


@pytest.fixture
def flags(tmp_path, pictures, monkeypatch):
    """The flags of a run that uses all four, from the folder where their files are; the names are gone afterwards."""
    registries = [module.registry for module in (backbones, heads, inputs, tuning)]
    for registry in registries:
        monkeypatch.setattr(registry, "_makers", dict(registry._makers))
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "weights.npy", KERNEL)
    lines = [f"{path} {path.parent.name}" for path in sorted(pictures.glob("*/*.png"))]
    (tmp_path / "images.txt").write_text("\n".join(lines) + "\n")
    yield [
        "--import_modules=etl_plugin",
        "--backbone=colors('weights.npy')",
        "--train_data=listing('images.txt')",
        "--head=cosine(scale=20)",
    ]
    for name in [name for name in sys.modules if name.partition(".")[0] == "etl_plugin"]:
        del sys.modules[name]


def test_a_plug_in_trains_evaluates_predicts_and_exports(flags, pictures, tmp_path, capsys):
    run = ["--model_dir=run", "--tuning=up_to(100)", "--train_steps=6", "--batch_size=5", "--learning_rate=0.1"]
    assert main(["train", *flags, *run]) == 0
    assert "tuning up_to(100), batch norm inference" in capsys.readouterr().out
    before, after = (
        checkpoint_values(tmp_path / "run" / "model.ckpt-0"),
        checkpoint_values(tmp_path / "run" / "model.ckpt-6"),
    )
    np.testing.assert_array_equal(before["colors/kernel"], KERNEL)
    for name in ("colors/kernel", "head/vectors"):
        assert np.abs(after[name] - before[name]).max() > 1e-3
    assert main(["evaluate", flags[0], "--model_dir=run"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["global_step"] == 6
    assert main(["predict", flags[0], "--model_dir=run", str(pictures / "cat" / "000.png")]) == 0
    assert set(json.loads(capsys.readouterr().out)["scores"]) == {"cat", "dog", "owl"}
    assert main(["export", flags[0], "--model_dir=run"]) == 0
    assert main(["inspect", flags[0], "--model_dir=run"]) == 0
    assert capsys.readouterr().out.endswith("the checkpoints agree with the plan\n")


def test_a_frozen_plug_in_does_not_move(flags, tmp_path):
    assert main(["train", *flags, "--model_dir=run", "--train_steps=3", "--batch_size=5"]) == 0
    np.testing.assert_array_equal(checkpoint_values(tmp_path / "run" / "model.ckpt-3")["colors/kernel"], KERNEL)


def test_contributing_names_what_the_plug_in_adds():
    text = (PLUGIN.parents[2] / "CONTRIBUTING.md").read_text()
    for path in (PLUGIN / "etl_plugin").glob("[a-z]*.py"):
        assert f"etl_plugin/{path.name}" in text
    assert re.search(r"make test\b", text)
