"""Runs that begin from other runs."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator
from estimator_tl.errors import UserError
from tests.checkpoints import checkpoint_values
from tests.runs import HEAD, files, states, train
from tests.tiny import random_batches, write_pictures


@pytest.fixture(scope="module")
def first_run(keras_h5, pictures, tmp_path_factory):
    """A run whose weights and statistics have moved, and the values that it ended with."""
    model_dir = tmp_path_factory.mktemp("first") / "run"
    train(model_dir, keras_h5, pictures, 3, "--tuning=full", "--batch_norm=train")
    values = checkpoint_values(model_dir / "model.ckpt-3")
    assert all(not np.array_equal(values[name], value) for name, value in keras_h5.values.items())
    return model_dir, values


def test_statistics_and_head_are_warm_started(first_run, keras_h5, pictures, tmp_path, capsys):
    model_dir, values = first_run
    flags = [f"--warm_start_from={model_dir}"]
    train(tmp_path / "run", keras_h5, pictures, 2, *flags)
    assert ": backbone and head\n" in capsys.readouterr().err
    zero, _, two = states(tmp_path / "run", 2)
    for name in (*keras_h5.values, *HEAD):
        np.testing.assert_array_equal(zero[name], values[name], err_msg=name)
    assert zero["global_step"] == 0
    assert not any(zero[name].any() for name in zero if name.endswith("/Adam"))
    for name in keras_h5.values:
        np.testing.assert_array_equal(two[name], values[name], err_msg=name)
    train(tmp_path / "run", keras_h5, pictures, 3, *flags)  # the same flags go on
    assert checkpoint_values(tmp_path / "run" / "model.ckpt-3")["global_step"] == 3


def test_a_new_head_is_allowed(first_run, keras_h5, tmp_path, capsys):
    model_dir, values = first_run
    others = write_pictures(tmp_path / "pictures", classes=("ant", "bee", "fly"))
    train(tmp_path / "run", keras_h5, others, 1, f"--warm_start_from={model_dir}")
    assert "the head is new" in capsys.readouterr().err
    zero = states(tmp_path / "run", 1)[0]
    for name in keras_h5.values:
        np.testing.assert_array_equal(zero[name], values[name], err_msg=name)
    assert not np.array_equal(zero["head/logits/kernel"], values["head/logits/kernel"])


def test_a_warm_start_that_would_be_ignored_is_an_error(first_run, keras_h5, pictures, tmp_path, capsys):
    model_dir, _ = first_run
    train(tmp_path / "run", keras_h5, pictures, 1)
    before = files(tmp_path)
    capsys.readouterr()
    train(tmp_path / "run", keras_h5, pictures, 2, f"--warm_start_from={model_dir}", code=2)
    assert "would be ignored" in capsys.readouterr().err
    for path in ("/nowhere", str(tmp_path)):
        train(tmp_path / "other", keras_h5, pictures, 2, f"--warm_start_from={path}", code=2)
        assert "holds no checkpoint to start from" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_a_run_of_another_backbone_is_refused(first_run, keras_zip, hub_module, pictures, tmp_path, capsys):
    model_dir, _ = first_run
    for source in (keras_zip, hub_module):
        train(tmp_path / "run", source, pictures, 2, f"--warm_start_from={model_dir}", code=2)
        assert "is a run of another backbone" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="stem/conv1/kernel is not there"):
        make_estimator(hub_module, tmp_path, model_dir)


def make_estimator(source, model_dir, start, classes=3, **kwargs):
    model_fn = etl.make_model_fn(
        etl.backbone(source.handle), etl.heads.classifier(n_classes=classes), warm_start_from=str(start), **kwargs
    )
    return estimator.Estimator(model_fn, str(model_dir), params={})


def test_in_a_program(first_run, keras_h5, tmp_path):
    start, values = first_run
    make_estimator(keras_h5, tmp_path / "a", start / "model.ckpt-3").train(random_batches(8), steps=1)
    zero = checkpoint_values(tmp_path / "a" / "model.ckpt-0")
    for name in (*keras_h5.values, *HEAD):
        np.testing.assert_array_equal(zero[name], values[name], err_msg=name)
    make_estimator(keras_h5, tmp_path / "a", start).train(random_batches(8), steps=1)
    with pytest.raises(UserError, match="has another head.*warm_start_head=False"):
        make_estimator(keras_h5, tmp_path / "b", start, classes=4).train(random_batches(8), steps=1)
    make_estimator(keras_h5, tmp_path / "c", start, classes=4, warm_start_head=False).train(random_batches(8), steps=1)
    with pytest.raises(UserError, match="would be ignored"):
        make_estimator(keras_h5, tmp_path / "a", start / "model.ckpt-2").train(random_batches(8), steps=1)
