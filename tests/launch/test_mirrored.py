"""Mirrored training on CPU devices by the command line, and what settings of the session change in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from estimator_tl.compat import tf
from estimator_tl.launch.training import TrainJob
from tests.checkpoints import checkpoint_values
from tests.runs import HEAD, moved, states, train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def estimators(monkeypatch):
    """The configs of the Estimators of a run, in the order in which they are made."""
    configs, estimator = [], TrainJob.estimator

    def noted(self, phase):
        model = estimator(self, phase)
        configs.append((phase, model.config))
        return model

    monkeypatch.setattr(TrainJob, "estimator", noted)
    return configs


@pytest.mark.full
@pytest.mark.parametrize("name", ["keras_h5", "hub_module"])
def test_three_replicas_train_as_one_process(name, request, pictures, tmp_path, estimators):
    """Statistics are frozen in all three, and the average of three equal numbers may be another one."""
    source = request.getfixturevalue(name)
    partial, part = next(iter(source.partial.items()))
    tuning = f"phases(phase(frozen,2),phase({partial},4),full)"
    flags = [f"--tuning={tuning}", "--batch_size=6", "--backbone_dropout=false", "--optimizer=sgd(momentum=0.9)"]
    train(tmp_path / "one", source, pictures, 5, *flags)
    assert [(phase, config.train_distribute) for phase, config in estimators] == [(0, None), (1, None), (2, None)]
    estimators.clear()
    train(tmp_path / "three", source, pictures, 5, *flags, "--cpu_replicas=3")
    assert [(phase, config.train_distribute.num_replicas_in_sync) for phase, config in estimators] == [
        (0, 3),
        (1, 3),
        (2, 3),
    ]
    one, three = (states(tmp_path / name, 5) for name in ("one", "three"))
    for name, value in source.values.items():
        np.testing.assert_array_equal(three[0][name], value, err_msg=f"step 0 of {name}")
    top, everything = HEAD | part, HEAD | source.trainable
    steps = [moved(before, after, {*source.values, *HEAD}) for before, after in zip(three, three[1:])]
    assert steps == [HEAD] * 2 + [top] * 2 + [everything]
    assert three[5].keys() == one[5].keys()
    for name, value in one[5].items():
        np.testing.assert_allclose(three[5][name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.full
@pytest.mark.parametrize("name", ["keras_h5", "hub_module"])
def test_a_run_goes_on_with_other_replicas(name, request, pictures, tmp_path):
    source = request.getfixturevalue(name)
    flags = ("--tuning=full", "--batch_size=6")
    train(tmp_path, source, pictures, 1, *flags)
    first = states(tmp_path, 1)[1]
    for steps, replicas in ((2, 2), (3, 3), (4, 1)):
        train(tmp_path, source, pictures, steps, *flags, f"--cpu_replicas={replicas}")
    last = states(tmp_path, 4)[4]
    assert last.keys() == first.keys()
    assert last["global_step"] == 4
    assert moved(first, last, source.values) == source.trainable


def test_session_settings_change_what_a_run_computes(keras_h5, pictures, tmp_path, estimators):
    """bfloat16 in a process of its own, as TensorFlow decides at its import whether it can."""
    flags = ["--xla", "--session_config=intra_op_parallelism_threads: 3", "--tuning=full", "--backbone_dropout=false"]
    train(tmp_path / "xla", keras_h5, pictures, 2, *flags)
    session_config = estimators[-1][1].session_config
    assert session_config.intra_op_parallelism_threads == 3
    level = tf.compat.v1.OptimizerOptions.ON_1
    assert session_config.graph_options.optimizer_options.global_jit_level == level

    common = ["--train_steps=2", "--batch_size=7", "--learning_rate=0.01", "--validation_fraction=0", *flags[2:]]
    where = [f"--backbone={keras_h5.handle}", f"--train_data={pictures}", f"--model_dir={tmp_path / 'bfloat16'}"]
    done = subprocess.run(
        [sys.executable, "-m", "estimator_tl", "train", "--precision=bfloat16", *common, *where],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    exact, rounded = (checkpoint_values(tmp_path / name / "model.ckpt-2") for name in ("xla", "bfloat16"))
    assert {value.dtype for name, value in rounded.items() if name != "global_step"} == {np.dtype(np.float32)}
    moments = [name for name in exact if name.endswith("/Adam")]
    assert moments
    for name in moments:
        np.testing.assert_allclose(rounded[name], exact[name], rtol=0.1, atol=0.05 * np.abs(exact[name]).max())
    differences = [np.abs(rounded[name] - exact[name]).max() / np.abs(exact[name]).max() for name in moments]
    assert max(differences) > 1e-4  # float32 has seven digits, bfloat16 two
