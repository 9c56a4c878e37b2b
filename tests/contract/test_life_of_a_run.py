"""What each kind of source must go through: phases, a stop at any step, evaluation, prediction and export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from tests import runs
from tests.contract.cells import SOURCES
from tests.tiny_text import write_table

IN_MAKE_TEST = ("hub_module",)
PHASES = ("--tuning=phases(phase(frozen, until=1), full)", "--nobackbone_dropout")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in IN_MAKE_TEST else pytest.mark.full) for n in SOURCES]
)
def test_phases_a_stop_and_an_export(name, request, pictures, tmp_path, capsys):
    source = request.getfixturevalue(name)
    data = pictures if source.size else write_table(tmp_path / "texts.csv")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    runs.train(whole, source, data, 4, *PHASES)
    for steps in (2, 4):
        runs.train(stopped, source, data, steps, *PHASES)

    first, probed, *_, last = runs.states(whole, 4)
    for variable, value in source.values.items():
        np.testing.assert_array_equal(first[variable], value, err_msg=variable)
    assert runs.moved(first, probed, source.values) == set()
    assert runs.moved(probed, last, source.values) == source.trainable
    again = runs.states(stopped, 4)[-1]
    assert last.keys() == again.keys()
    for variable, value in last.items():
        np.testing.assert_array_equal(again[variable], value, err_msg=variable)

    capsys.readouterr()
    assert main(["evaluate", f"--model_dir={stopped}", f"--eval_data={data}"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"] <= 1
    assert main(["export", f"--model_dir={stopped}", f"--export_dir={tmp_path / 'served'}"]) == 0
    served = tf.saved_model.load(capsys.readouterr().out.splitlines()[-1]).signatures["serving_default"]
    if source.size:
        inputs = sorted(str(path) for path in Path(pictures).glob("*/00*.png"))[:6]
        given = {"image_bytes": tf.constant([Path(path).read_bytes() for path in inputs])}
    else:
        inputs = [str(tmp_path / "few.txt")]
        texts = ["the cat", "road and fuel", "unknown words"]
        Path(inputs[0]).write_text("".join(f"{text}\n" for text in texts))
        given = {"text": tf.constant(texts)}
    assert main(["predict", f"--model_dir={stopped}", *inputs]) == 0
    predicted = [list(json.loads(line)["scores"].values()) for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(predicted, served(**given)["probabilities"].numpy(), atol=2e-6)  # six digits are printed
