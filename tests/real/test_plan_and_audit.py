"""Plan and audit of runs on the real MobileNet: what moved is what the plan says, and no other variable."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from tests.checkpoints import checkpoint_values
from tests.runs import HEAD, moved


@pytest.fixture(scope="module")
def few_images(real_images, tmp_path_factory):
    """Six photos of each of three classes, in a folder with an odd name."""
    folder = tmp_path_factory.mktemp("few") / "digits [0..2}"
    for name in ("0", "1", "2"):
        (folder / name).mkdir(parents=True)
        for photo in sorted((real_images / name).iterdir())[:6]:
            shutil.copy(photo, folder / name / photo.name)
    return folder


@pytest.fixture
def handles(mobilenet_tf2, mobilenet_weights):
    """Handles of the same network, by kind."""
    return {
        "saved_model": str(mobilenet_tf2),
        "keras": f"keras.MobileNet(alpha=0.25, weights={str(mobilenet_weights)!r})",
    }


@pytest.mark.parametrize(
    ("kind", "tuning", "count"),
    [
        ("saved_model", "frozen", 0),
        ("saved_model", "last_groups(3)", 3),
        ("keras", "frozen", 0),
        ("keras", "last_layers(6)", 6),
    ],
)
def test_what_moves_is_what_the_plan_says(kind, tuning, count, handles, few_images, tmp_path, capsys):
    run = tmp_path / "lr={0.01},b [8"
    flags = {
        "backbone": handles[kind],
        "train_data": few_images,
        "model_dir": run,
        "tuning": tuning,
        "train_steps": 2,
        "batch_size": 6,
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "validation_fraction": 0,
    }
    assert main(["train", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    printed = capsys.readouterr().out
    before, after = (checkpoint_values(run / f"model.ckpt-{step}") for step in (0, 2))
    source = etl.backbone(handles[kind])
    values = source.values()
    assert all(np.array_equal(before[name], value) for name, value in values.items())
    changed = moved(before, after, values.keys() | HEAD)
    assert changed == HEAD | expected(source.structure, tuning, count)
    trained = sum(np.size(before[name]) for name in changed)
    assert re.search(rf"^trainable params: {trained:,} \|\|", printed, re.MULTILINE)
    assert main(["inspect", f"--model_dir={run}"]) == 0
    assert "the checkpoints agree with the plan" in capsys.readouterr().out


def expected(structure, tuning, count):
    """The trainable variables of the last groups, or of the last layers of a network without its top."""
    if not count:
        return frozenset()
    if tuning.startswith("last_groups"):
        last = list(dict.fromkeys(variable.group for variable in structure.variables))[-count:]
        return frozenset(v.name for v in structure.variables if v.trainable and v.group in last)
    last = structure.layers[-count:]
    return frozenset(v.name for v in structure.variables if v.trainable and v.layer in last)
