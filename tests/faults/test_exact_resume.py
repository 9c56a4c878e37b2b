"""A run killed at any point and started again ends as the run that was never killed, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import checkpoint_values
from tests.faults.killed_run import STEPS

ROOT = Path(__file__).resolve().parents[2]
PHASE_STARTS = (5, 10, 15)


def run(model_dir, pictures, source, optimizer, *kill):
    """Runs to the end, or until it kills itself; returns the exit status."""
    command = [sys.executable, "-m", "tests.faults.killed_run", model_dir, pictures, source.handle, optimizer, *kill]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def final_values(model_dir):
    return checkpoint_values(model_dir / f"model.ckpt-{STEPS}")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, pictures, keras_h5):
    """The final values of a run without interruption, by optimizer."""
    made = {}

    def values(optimizer):
        if optimizer not in made:
            model_dir = tmp_path_factory.mktemp("whole") / "run"
            assert run(model_dir, pictures, keras_h5, optimizer) == 0
            made[optimizer] = final_values(model_dir)
        return made[optimizer]

    return values


def points(seed, count):
    """Rising points to die at: in the middle of a phase, at a boundary, while writing a checkpoint."""
    chosen = random.Random(seed)
    steps = sorted(chosen.sample(range(1, STEPS), count))
    kinds = [chosen.choice(["after", "after", "writing"]) for _ in steps]
    return [("after", step) if step in PHASE_STARTS else (kind, step) for kind, step in zip(kinds, steps)]


@pytest.mark.full
@pytest.mark.parametrize(
    ("optimizer", "deaths"),
    [
        pytest.param("adam", [("after", 10), ("writing", 12)], id="adam-writing"),
        pytest.param("adam", [("after", 4), ("writing", 6), ("after", 15)], id="adam-early"),
        *(
            pytest.param(optimizer, points(seed, 5), id=f"{optimizer}-{seed}")
            for seed, optimizer in enumerate(["adam", "sgd(momentum=0.9)", "adam", "sgd(momentum=0.9)"])
        ),
    ],
)
def test_a_killed_run_ends_as_one_that_was_not(optimizer, deaths, tmp_path, pictures, keras_h5, uninterrupted):
    model_dir = tmp_path / "run"
    died = [run(model_dir, pictures, keras_h5, optimizer, kind, step) for kind, step in deaths]
    late = sum(kind == "writing" for kind, _ in deaths)  # a checkpoint may be written between two looks
    assert died.count(-signal.SIGKILL) >= len(deaths) - min(late, 1)
    run(model_dir, pictures, keras_h5, optimizer)
    expected, found = uninterrupted(optimizer), final_values(model_dir)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
