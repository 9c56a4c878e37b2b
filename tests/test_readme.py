"""The README's program runs as it stands, on small stand-ins."""

from __future__ import annotations

import re
from pathlib import Path

import estimator_tl as etl
from estimator_tl.cli.main import COMMANDS

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_program(application, pictures, tmp_path, capsys):
    program = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    stand_ins = {
        "\"keras.MobileNetV2(weights='imagenet')\"": repr(application.handle),
        '"flowers"': repr(str(pictures)),
        '"runs/flowers"': repr(str(tmp_path / "run")),
        '"serving/flowers"': repr(str(tmp_path / "serving")),
        "steps=500": "steps=2",
    }
    for text, stand_in in stand_ins.items():
        assert text in program
        program = program.replace(text, stand_in)
    exec(program, {})
    assert re.search(r"'global_step': (np\.int64\()?2\b", capsys.readouterr().out)
    (version,) = (tmp_path / "serving").iterdir()
    assert (version / "saved_model.pb").exists()
    assert (version / "assets.extra" / "labels.txt").read_text() == "cat\ndog\nowl\n"


def test_tables_name_what_exists():
    for command in COMMANDS:
        assert f"| `{command}` |" in README
    tuning = (Path(__file__).parent.parent / "docs" / "TUNING.md").read_text()
    for policy in etl.tuning.registry.names():
        assert f"`{policy}" in tuning


def test_recipes_are_valid_flags():
    from estimator_tl.cli import train
    from estimator_tl.cli.command import CommandFlags, define_common

    recipes = sorted((Path(__file__).parent.parent / "flags").glob("*.flags"))
    (named,) = re.findall(r"`flags/` holds commented recipes: (.*?)\.", README, re.DOTALL)
    assert [recipe.stem for recipe in recipes] == sorted(re.findall(r"`(\w+)`", named))
    policies = {"text": "linear_probe_then_full"}
    for recipe in recipes:
        known = CommandFlags()
        train.define(known)
        define_common(known)
        known.values(["train", f"--flagfile={recipe}"])
        assert str(etl.tuning.registry.make(known.values.tuning)).startswith(policies.get(recipe.stem, recipe.stem))
        rate = known.values.learning_rate
        etl.optimizers.registry.make(known.values.optimizer).with_learning_rate(rate)
        etl.heads.registry.make(known.values.head)


def test_own_modules_add_names(tmp_path, monkeypatch, capsys):
    from estimator_tl.cli.main import main

    (tmp_path / "my_policies.py").write_text(
        "from estimator_tl import tuning\n\n"
        "@tuning.registry.register()\n"
        "def biases():\n"
        "    return tuning.scopes('beta$')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    flags = ["--backbone=keras.MobileNet(alpha=0.25, weights=None, image_size=32)", "--import_modules=my_policies"]
    assert main(["inspect", *flags, "--tuning=biases"]) == 0
    assert "tuning scopes('beta$')" in capsys.readouterr().out
