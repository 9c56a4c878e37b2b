"""Folders whose names TensorFlow takes as patterns: refused in one line where it would find nothing, or work."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import estimator
from estimator_tl.errors import UserError
from tests.checkpoints import checkpoint_values
from tests.cli.refusals import refused
from tests.runs import files, save_checkpoint, train
from tests.tiny import random_batches

PATTERN = "exp[lr=0.1]"
WHY = "TensorFlow takes [ ], \\, * and ? in a path as a pattern and would"


@pytest.mark.parametrize("name", [PATTERN, "a\\b", "a*b", "lr?"])
def test_a_run_is_not_trained_there(name, keras_h5, pictures, tmp_path, capsys):
    folder = tmp_path / name
    given = [f"--backbone={keras_h5.handle}", f"--train_data={pictures}", "--train_steps=1"]
    line = refused(capsys, "train", *given, f"--model_dir={folder}")
    assert line.startswith(f"error: --model_dir {folder}: {WHY}")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=re.escape(WHY)):
        etl.run_config(str(folder))
    model = estimator.Estimator(lambda features, labels, mode: None, str(folder))
    with pytest.raises(UserError, match=re.escape(WHY)):
        etl.train_and_evaluate(model, estimator.TrainSpec(random_batches(8), max_steps=1))


def test_a_run_that_is_there_is_refused_by_every_command(keras_h5, pictures, tmp_path, capsys):
    run = tmp_path / "run"
    train(run, keras_h5, pictures, 1)
    run.rename(tmp_path / PATTERN)
    run = tmp_path / PATTERN
    capsys.readouterr()
    before = files(run)
    given = [f"--backbone={keras_h5.handle}", f"--train_data={pictures}", f"--model_dir={tmp_path / 'other'}"]
    for command in (
        ["evaluate", f"--model_dir={run}", "--split=all"],
        ["predict", f"--model_dir={run}", f"--input={pictures}"],
        ["export", f"--model_dir={run}", f"--export_dir={tmp_path / 'export'}"],
        ["inspect", f"--model_dir={run}"],
        ["train", *given, "--train_steps=1", f"--warm_start_from={run}"],
        ["train", *given, "--train_steps=1", f"--warm_start_from={run}/model.ckpt-1"],
    ):
        assert WHY in refused(capsys, *command)
    assert files(run) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [PATTERN]


@pytest.mark.parametrize("source", ["hub_module", "keras_folder", "tf1_module"], indirect=True)
def test_a_source_that_is_there_is_refused(source, tmp_path):
    folder = tmp_path / PATTERN
    shutil.copytree(source.handle, folder)
    with pytest.raises(UserError, match=re.escape(f"backbone {folder}: {WHY}")):
        etl.backbone(str(folder))


def test_a_checkpoint_source_that_is_there_is_refused(tmp_path):
    folder = tmp_path / PATTERN
    folder.mkdir()
    prefix = save_checkpoint(folder, 1)
    for path in (folder, prefix):
        with pytest.raises(UserError, match=re.escape(WHY)):
            etl.backbone(f"checkpoint({str(path)!r}, network='tests.networks:v1_network', image_size=8)")


def test_an_export_is_refused_there(keras_h5, pictures, tmp_path, capsys):
    train(tmp_path / "run", keras_h5, pictures, 1)
    capsys.readouterr()
    export = tmp_path / PATTERN / "serving"
    assert WHY in refused(capsys, "export", f"--model_dir={tmp_path / 'run'}", f"--export_dir={export}")
    given = [f"--backbone={keras_h5.handle}", f"--train_data={pictures}", f"--model_dir={tmp_path / 'new'}"]
    assert WHY in refused(capsys, "train", *given, "--train_steps=1", f"--export_dir={export}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_data_and_files_of_such_names_and_other_odd_names_work(keras_h5, pictures, tmp_path, capsys):
    plain, odd = tmp_path / "plain", tmp_path / "a{b,c} [d ü~$#%"
    for folder, data, source in ((plain, pictures, keras_h5.handle), (odd, odd / PATTERN, odd / "m[1]*?.h5")):
        if folder is odd:
            shutil.copytree(pictures, data)
            shutil.copy(keras_h5.handle, source)
        flags = [f"--backbone={source}", f"--train_data={data}", "--batch_size=7", "--exporters=final"]
        assert main(["train", *flags, f"--model_dir={folder / 'run'}", "--train_steps=3"]) == 0
        assert "evaluation at step 3" in capsys.readouterr().err
    assert main(["evaluate", f"--model_dir={odd / 'run'}"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["global_step"] == 3
    assert len(list((odd / "run/export/final").glob("[0-9]*/saved_model.pb"))) == 1
    expected, values = (checkpoint_values(folder / "run/model.ckpt-3") for folder in (plain, odd))
    assert all(np.array_equal(values[name], expected[name]) for name in expected)
