"""Runs the recipes of docs/RECIPES.md, each as a command and as a program, and checks what both trained."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import estimator, tf

RECIPES = (Path(__file__).parents[2] / "docs" / "RECIPES.md").read_text()
LOGITS = frozenset({"head/logits/kernel", "head/logits/bias"})
HIDDEN = LOGITS | {"head/hidden_0/kernel", "head/hidden_0/bias"}


def section(title):
    """Returns the text of a recipe."""
    (found,) = re.findall(rf"^### {re.escape(title)}\n(.*?)(?=^##|\Z)", RECIPES, re.DOTALL | re.MULTILINE)
    return found


def blocks(title):
    """Returns the command and the program of a recipe."""
    (command,) = re.findall(r"```sh\n(.*?)```", section(title), re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", section(title), re.DOTALL)
    return command, program


def replaced(text, stand_ins):
    for old, new in stand_ins.items():
        assert old in text
        text = text.replace(old, new)
    return text


class Run:
    """What a run left behind."""

    def __init__(self, folder):
        self.folder = folder

    def values(self, step):
        reader = tf.train.load_checkpoint(str(self.folder / f"model.ckpt-{step}"))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}

    def moved(self, first, last, source):
        """Returns the variables of backbone and head that differ in at least one bit."""
        before, after = self.values(first), self.values(last)
        weights = [name for name in before if name in source.values or re.match(r"head/\w+/(kernel|bias)$", name)]
        return {name for name in weights if before[name].tobytes() != after[name].tobytes()}

    def rates(self):
        """Returns the learning rate of each step."""
        found = []
        for path in self.folder.glob("events.out.tfevents*"):
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                found += [v.simple_value for v in event.summary.value if v.tag == "learning_rate"]
        return found

    def settings(self, part="model"):
        """Returns a part of the settings that a command's run.json has."""
        return json.loads((self.folder / "run.json").read_text())["settings"][part]

    def head(self):
        """Returns the head that a command's run.json names."""
        return etl.heads.registry.make(self.settings()["head"])


def run_both(title, stand_ins, folder, every, command_only=(), program_only=()):
    """Runs a recipe as command and as program, with checkpoints every so many steps; returns both runs.

    The program gets the command's seed, so that they can be compared.
    """
    command, program = blocks(title)
    (model_dir,) = set(re.findall(r"runs/\w+", command))
    command = replaced(command, {**stand_ins, **dict(command_only), model_dir: str(folder / "command")})
    name, *arguments = shlex.split(command.replace("\\\n", ""))
    assert name == "estimator-tl"
    assert main([*arguments, f"--save_checkpoints_steps={every}", "--save_summary_steps=1"]) == 0
    place = {f'"{model_dir}"': f'"{folder / "program"}", config=CONFIG'}
    program = replaced(program, {**stand_ins, **dict(program_only), **place})
    config = estimator.RunConfig(tf_random_seed=0, save_checkpoints_steps=every, save_summary_steps=1)
    exec(program, {"CONFIG": config})
    return Run(folder / "command"), Run(folder / "program")


def check(runs, source, phases, units=None):
    """Asserts what each phase moved, at which rates, and that the program ended where the command did.

    Args:
      runs: of `run_both`.
      source: the stand-in, with its `values` by variable name.
      phases: (first step, last step, rate, trained variables of the source) for each phase; the rate is a number or,
        where it changes, a list of them.
      units: of the head's hidden layer.
    """
    head = HIDDEN if units else LOGITS
    end = phases[-1][1]
    for run in runs:
        first = run.values(0)
        for name, value in source.values.items():
            np.testing.assert_array_equal(first[name], value, err_msg=f"step 0 of {name} is not the source")
        for start, stop, _, trained in phases:
            assert run.moved(start, stop, source) == trained | head
        expected = []
        for start, stop, rate, _ in phases:
            expected += rate if isinstance(rate, list) else [rate] * (stop - start)
        assert run.rates() == pytest.approx(expected, rel=1e-6)
        if units:
            assert first["head/hidden_0/kernel"].shape[1] == units
    command, program = (run.values(end) for run in runs)
    assert set(command) == set(program)
    for name, value in command.items():
        np.testing.assert_allclose(program[name], value, rtol=1e-4, atol=1e-7, err_msg=name)
