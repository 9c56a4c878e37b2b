"""The programs of scripts/benchmarks/ and scripts/demo/ run, each at its smallest size; figures mean nothing then."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
PROGRAMS = {
    path.relative_to(SCRIPTS).as_posix()
    for folder in ("benchmarks", "demo")
    for path in (SCRIPTS / folder).glob("*.py")
    if "__main__" in path.read_text()
}
RATIO = r"\d+\.\d{3}"


def run(program, *arguments):
    """Runs a program to its end, which it reaches with 0, and returns what it printed."""
    command = [sys.executable, str(SCRIPTS / program), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_no_program_goes_without_its_test():
    text = Path(__file__).read_text()
    by_others = {"benchmarks/launch_plain.py", "demo/classify_export.py"}  # launch.py and digits.py run these
    run_here = set(re.findall(r'= run\(\s*"([\w/.]+)"', text))
    assert run_here | by_others == PROGRAMS


def test_train_throughput(keras_h5):
    printed = run(
        "benchmarks/train_throughput.py",
        *(f"--backbone={keras_h5.handle}", "--tuning=frozen", "--batch_size=2", "--steps=1", "--rounds=1"),
        "--pictures=2",
    )
    assert "batch 2 of 8x8x3, 1 rounds of 1 steps" in printed
    for name in ("hand-written model_fn", "Keras 2 fit", "forward pass only"):
        assert re.search(rf"^(frozen: )?{name}(, frozen)? +\d", printed, re.MULTILINE), name
    assert re.search(rf"^frozen: hand-written model_fn, frozen +{RATIO}", printed, re.MULTILINE)
    assert re.search(r"^whole etl.inputs pipeline +\d", printed, re.MULTILINE)


def test_orientation():
    printed = run("benchmarks/orientation.py", "--sizes=20", "--images=2", "--repeats=1")
    for kind in ("JPEG", "JPEG, upright", "JPEG, sideways", "PNG", "PNG, transparent"):
        assert re.search(rf"^{kind} +20 +\d+ +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d$", printed, re.MULTILINE), kind


def test_tuning_cost(keras_h5):
    printed = run(
        "benchmarks/tuning_cost.py",
        *(f"--keras={keras_h5.handle}", "--tuning=partial", "--depths=1", "--phases=both"),
        *("--batch_size=2", "--steps=1", "--rounds=1"),
    )
    assert "batch 2 of 8x8x3, 1 rounds of 1 steps" in printed
    for name in ("estimator_tl", "phase alone", "gated"):
        assert name in printed
    assert re.search(RATIO, printed)


@pytest.mark.full
def test_backbones():
    printed = run("benchmarks/backbones.py", "--sources=keras_h5")
    header, row = printed.splitlines()[-2:]
    assert header.split()[0] == "source"
    kind, megabytes, *_ = row.split()
    assert (kind, megabytes) == ("keras_h5", "151")


@pytest.mark.full
def test_evaluation(hub_module, pictures):
    printed = run(
        "benchmarks/evaluation.py",
        *(f"--module={hub_module.handle}", f"--pictures={pictures}", "--steps=2", "--every=1", "--rounds=1"),
    )
    assert re.search(r"^in memory / checkpoints: \d", printed, re.MULTILINE)
    assert "2 evaluations, the same numbers" in printed


@pytest.mark.full
def test_launch(hub_module, pictures):
    printed = run(
        "benchmarks/launch.py",
        *(f"--module={hub_module.handle}", f"--pictures={pictures}", "--size=8", "--rounds=1"),
        *("--scaling", "--workers=1", "--steps=20"),
    )
    assert "no TensorFlow" in printed
    assert re.search(rf"^ratio {RATIO} ", printed, re.MULTILINE)
    assert re.search(r"^one process +[\d.]+ +1.00$", printed, re.MULTILINE)
    assert re.search(r"^parameter server, 1 workers +[\d.]+", printed, re.MULTILINE)


@pytest.mark.full
def test_demo():
    printed = run("demo/digits.py", "--seeds=1", "--steps=2")
    assert "images: 1797 handwritten digits (8 x 8, grey) in class folders" in printed
    for strategy in ("from scratch", "frozen", "last groups", "full"):
        assert re.search(rf"^{strategy} +2 +[\d,]+ +[\d.]+% ", printed, re.MULTILINE), strategy
    assert re.search(r"^  class [5-9]   scores 5: 0\.\d", printed, re.MULTILINE)
