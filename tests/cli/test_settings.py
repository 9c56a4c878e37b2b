"""Each setting is written once: flags, checks, help and docs/FLAGS.md derive from the fields of the specs."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from estimator_tl.cli import train
from estimator_tl.cli.command import CommandFlags, define_common
from estimator_tl.cli.main import COMMANDS, main
from estimator_tl.config import DataSpec, EvaluationSpec, LaunchSpec, ModelSpec, TrainingSpec
from estimator_tl.config.setting import settings_of
from estimator_tl.errors import UserError

SPECS = (ModelSpec, DataSpec, TrainingSpec, EvaluationSpec, LaunchSpec)
ROOT = Path(__file__).parent.parent.parent


def parsed(*arguments):
    flags = CommandFlags()
    train.define(flags)
    define_common(flags)
    flags.parse("train", list(arguments))
    return flags


@pytest.mark.parametrize("spec", [EvaluationSpec, LaunchSpec, TrainingSpec])
def test_flags_give_the_spec_its_defaults(spec):
    assert parsed().spec(spec) == spec()


def test_a_spec_gets_what_the_flags_say():
    flags = parsed("--backbone=x.h5", "--input_range=-1,1", "--train_data=x", "--nobackbone_dropout")
    assert flags.spec(ModelSpec) == ModelSpec("x.h5", input_range=(-1.0, 1.0), backbone_dropout=False)
    assert flags.spec(DataSpec) == DataSpec("x", validation_fraction=0.2)
    assert parsed("--train_data=x", "--eval_data=y").spec(DataSpec).validation_fraction == 0.0


def test_no_command_writes_a_default_of_a_setting_again():
    """A flag that a command defines by hand has no name of a setting, but where it means something else."""
    settings = {setting.name for spec in SPECS for setting in settings_of(spec)}
    makers = {"string", "integer", "number", "boolean", "choice", "many"}
    again = [
        (path.name, node.args[1].value)
        for path in (ROOT / "estimator_tl" / "cli").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in makers
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
        and node.args[1].value in settings
    ]
    # Of other data than those of the run.
    of_other_data = {("evaluate.py", name) for name in ("eval_data", "batch_size", "on_bad_example")}
    assert set(again) == of_other_data | {("predict.py", "batch_size"), ("predict.py", "on_bad_example")}


@pytest.fixture
def flagfile(tmp_path):
    def write(name, *lines):
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return f"--flagfile={path}"

    return write


PAIRS = [
    ("epochs", "3", "train_steps", "7"),
    ("train_steps", "7", "epochs", "3.0"),
    ("save_checkpoints_steps", "5", "save_checkpoints_secs", "60"),
    ("save_checkpoints_secs", "60", "save_checkpoints_steps", "5"),
    ("slurm_jobs", "worker:2", "worker_hosts", "a:1"),
    ("worker_hosts", "a:1", "slurm_jobs", "worker:2"),
]


@pytest.mark.parametrize(("name", "value", "later", "later_value"), PAIRS)
def test_the_later_of_two_exclusive_settings_wins(flagfile, name, value, later, later_value):
    file = flagfile("a.flags", f"--{name}={value}")
    both = [(file, f"--{later}={later_value}"), (f"--{later}={later_value}", file)]
    both.append((file, flagfile("b.flags", f"--{later}={later_value}")))
    for arguments in both:
        flags = parsed(*arguments)
        assert flags.given().keys() == {later}
        assert flags.text() == f"--{later}={later_value}\n"


@pytest.mark.parametrize(("name", "value", "later", "later_value"), PAIRS)
def test_two_exclusive_settings_of_one_place_are_an_error(flagfile, name, value, later, later_value):
    message = "both {0} and {1} are given; give one of them."
    either = {message.format(name, later), message.format(later, name)}
    typed = (f"--{name}={value}", f"--{later}={later_value}")
    for arguments in (typed, [flagfile("a.flags", *typed)]):
        with pytest.raises(UserError) as error:
            parsed(*arguments)
        assert str(error.value) in either


def test_help_shows_what_people_set(capsys):
    shown = {}
    for flag in ("--help", "--helpfull"):
        assert main(["train", flag]) == 0
        text = capsys.readouterr().out
        shown[flag] = set(re.findall(r"^  --(?:\[no\])?(\w+):", text, re.M))
        assert text.endswith("docs/FLAGS.md is the reference.\n")
    assert 20 <= len(shown["--help"]) <= 32
    assert {setting.name for spec in SPECS for setting in settings_of(spec)} < shown["--helpfull"]
    assert shown["--help"] < shown["--helpfull"]


def test_the_reference_is_what_the_settings_say():
    path = ROOT / "scripts" / "flags_reference.py"
    spec = importlib.util.spec_from_file_location("flags_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs" / "FLAGS.md").read_text()
    assert text == module.reference(), "run python scripts/flags_reference.py"
    assert all(f"## estimator-tl {name}\n" in text for name in COMMANDS)
