"""Runs written before rules were stored mean today what they meant: the fixtures hold what their code answered.

Their images include one stored sideways, one with hidden colours, a palette BMP, a nested one and a WebP.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from tests.checkpoints import checkpoint_values

FIXTURES = Path(__file__).parent.parent / "fixtures" / "earlier_runs"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())


@pytest.fixture
def folder(tmp_path):
    """The fixtures in a folder that their run.json names."""
    target = tmp_path / "earlier"
    shutil.copytree(FIXTURES, target)
    for name in EXPECTED:
        path = target / name / "run.json"
        path.write_text(path.read_text().replace("FOLDER", str(target)))
    return target


@pytest.mark.parametrize("run", EXPECTED)
def test_an_earlier_run_is_evaluated_as_before(run, folder, capsys):
    assert main(["evaluate", f"--model_dir={folder / run}", "--split=all"]) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert metrics == pytest.approx(EXPECTED[run]["evaluate"], rel=1e-5)


@pytest.mark.parametrize("run", EXPECTED)
def test_an_earlier_run_predicts_and_serves_as_before(run, folder, capsys):
    names = list(EXPECTED[run]["predict"])
    paths = [str(folder / "images" / name) for name in names]
    assert main(["predict", f"--model_dir={folder / run}", *paths]) == 0
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    answers = {str(Path(line["file"]).relative_to(folder / "images")): line["scores"] for line in lines}
    assert main(["export", f"--model_dir={folder / run}"]) == 0
    served = tf.saved_model.load(capsys.readouterr().out.splitlines()[-1]).signatures["serving_default"]
    with tf.device("cpu:0"):
        probabilities = served(image_bytes=tf.constant([Path(path).read_bytes() for path in paths]))["probabilities"]
    for name, row in zip(names, probabilities.numpy()):
        expected = EXPECTED[run]["predict"][name]
        assert answers[name] == pytest.approx(expected, abs=2e-6)
        assert row == pytest.approx(list(expected.values()), abs=2e-6)


def test_an_earlier_run_goes_on_as_before(folder):
    flags = ["--tuning=full", "--train_steps=8", "--batch_size=4", "--save_checkpoints_steps=4"]
    sources = [f"--backbone={folder / 'module'}", f"--train_data={folder / 'images'}"]
    assert main(["train", f"--model_dir={folder / 'run_module'}", *sources, *flags]) == 0
    after, expected = (checkpoint_values(folder / name / "model.ckpt-8") for name in ("run_module", "after"))
    unused = {"save_counter"}  # the module has it, but no output depends on it
    assert after.keys() == expected.keys() - unused
    for name in after:
        np.testing.assert_allclose(after[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert json.loads((folder / "run_module" / "run.json").read_text())["settings"]["data"]["rules"] == 1
