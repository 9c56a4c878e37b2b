"""Programs with a main of their own: etl.train_and_evaluate, in one process and on clusters; the functions of TFX."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from estimator_tl.launch.evaluating.evaluation import read_history
from estimator_tl.revival.api import load_v1_estimator
from tests import linear
from tests.checkpoints import checkpoint_values
from tests.cluster import Cluster
from tests.launch.program_estimators import made, model_fn_of, once
from tests.runs import moved
from tests.tiny import random_batches

PROGRAM = Path(__file__).parent.parent / "programs" / "own_main.py"


def receiver():
    images = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 3], name="image")
    return estimator.export.ServingInputReceiver({"image": images}, {"image": images})


def test_every_checkpoint_is_evaluated_and_the_last_exported(keras_h5, tmp_path):
    final = estimator.FinalExporter("final", receiver)
    outcome = etl.train_and_evaluate(*made(keras_h5, tmp_path, 7, [final], save_checkpoints_steps=3))
    assert (outcome.global_step, outcome.steps, outcome.exit_code, outcome.stop) == (7, 7, 0, None)
    assert [item["global_step"] for item in read_history(str(tmp_path))] == [3, 6, 7]
    (export,) = (tmp_path / "export" / "final").iterdir()
    image = np.random.RandomState(0).rand(2, 8, 8, 3).astype(np.float32)
    served = tf.saved_model.load(str(export)).signatures["serving_default"](tf.constant(image))
    again = estimator.Estimator(model_fn_of(keras_h5), str(tmp_path), params={})
    predicted = again.predict(lambda: tf.data.Dataset.from_tensors({"image": image}))
    np.testing.assert_allclose(served["probabilities"], [p["probabilities"] for p in predicted], rtol=1e-6)
    # Nothing is left to train: the last checkpoint is evaluated again, and that is all.
    outcome = etl.train_and_evaluate(*made(keras_h5, tmp_path, 7, save_checkpoints_steps=3))
    assert (outcome.steps, outcome.metrics["global_step"]) == (0, 7)


@pytest.mark.full
def test_rules_end_it(keras_h5, tmp_path):
    outcome = etl.train_and_evaluate(*made(keras_h5, tmp_path, 50, save_checkpoints_steps=2), stop_at=0.0)
    assert (outcome.global_step, outcome.exit_code) == (2, 0)
    assert outcome.stop.reason.startswith("accuracy ")
    assert not outcome.stop.resumes


def test_what_is_wrong_is_said(keras_h5, tmp_path):
    model, training, evaluation = made(keras_h5, tmp_path, 5)
    with pytest.raises(UserError, match="no setting 'stop_att'; did you mean 'stop_at'"):
        etl.train_and_evaluate(model, training, evaluation, stop_att=1)
    with pytest.raises(UserError, match="the TrainSpec has no max_steps"):
        etl.train_and_evaluate(model, estimator.TrainSpec(random_batches(8)), evaluation)
    assert not list(tmp_path.iterdir())


@pytest.mark.full
@pytest.mark.parametrize(
    "tasks",
    [
        pytest.param({"chief": 1, "worker": 1, "ps": 1}, id="parameter servers"),
        pytest.param({"worker": 2, "evaluator": 1}, id="multi-worker mirrored"),
    ],
)
def test_on_a_cluster(keras_h5, tmp_path, tasks):
    program = [str(PROGRAM), keras_h5.handle, "last_layers(3)", str(tmp_path / "run"), "20"]
    with Cluster(tmp_path / "logs", program, command=[sys.executable], **tasks) as cluster:
        cluster.start()
        # Parameter servers leave by themselves, too.
        cluster.wait_until(lambda: all(task.status == 0 for task in cluster.tasks.values()), "the end of all tasks")
        texts = {task.name: task.text for task in cluster.tasks.values()}
    steps = 20 if "evaluator" in tasks else 21  # asynchronous: the other worker may finish the step that it is in
    path = tf.train.latest_checkpoint(str(tmp_path / "run"))
    assert 20 <= int(path.rpartition("-")[2]) <= steps
    first, last = checkpoint_values(tmp_path / "run" / "model.ckpt-0"), checkpoint_values(Path(path))
    for name, value in keras_h5.values.items():
        np.testing.assert_array_equal(first[name], value)
    assert moved(first, last, keras_h5.values) == keras_h5.partial["last_layers(3)"]
    evaluates = "evaluator 0" if "evaluator" in tasks else "chief 0"
    for name, text in texts.items():
        found = re.findall(r"OUTCOME step (\d+) accuracy (\S+)", text)
        assert len(found) == 1, name
        assert (found[0][1] != "None") == (name == evaluates), name


# TFX.


def fn_args(folder, **others):
    usual = {
        "train_files": ["train*"],
        "eval_files": ["eval*"],
        "train_steps": 4,
        "eval_steps": 1,
        "serving_model_dir": str(folder / "serving"),
        "model_run_dir": str(folder / "run"),
    }
    return SimpleNamespace(**{**usual, **others})


def make_input_fn(seen):
    def make(files, training):
        seen.append((files, training))
        return random_batches(8) if training else once

    return make


def test_run_fn_leaves_a_model_where_tfx_looks_for_it(hub_module, tmp_path):
    seen = []
    run = etl.tfx.run_fn(model_fn_of(hub_module), make_input_fn(seen), receiver, save_checkpoints_steps=2)
    run(fn_args(tmp_path))
    assert seen == [(["train*"], True), (["eval*"], False)]
    assert sorted(path.name for path in (tmp_path / "run").glob("*.index")) == [
        f"model.ckpt-{step}.index" for step in (0, 2, 4)
    ]
    served = tf.saved_model.load(str(tmp_path / "serving")).signatures["serving_default"]
    image = np.random.RandomState(0).rand(2, 8, 8, 3).astype(np.float32)
    again = estimator.Estimator(model_fn_of(hub_module), str(tmp_path / "run"), params={})
    predicted = again.predict(lambda: tf.data.Dataset.from_tensors({"image": image}))
    wanted = [p["probabilities"] for p in predicted]
    np.testing.assert_allclose(served(tf.constant(image))["probabilities"], wanted, rtol=1e-6)


@pytest.mark.full
def test_trainer_fn_gives_what_the_older_trainer_takes(hub_module, tmp_path):
    trainer = etl.tfx.trainer_fn(model_fn_of(hub_module), make_input_fn([]), receiver, save_checkpoints_steps=2)
    given = trainer(fn_args(tmp_path), None)
    assert set(given) == {"estimator", "train_spec", "eval_spec", "eval_input_receiver_fn"}
    estimator.train_and_evaluate(given["estimator"], given["train_spec"], given["eval_spec"])
    assert tf.train.latest_checkpoint(str(tmp_path / "run")).endswith("-4")
    (export,) = (tmp_path / "run" / "export" / "serving").iterdir()
    assert "serving_default" in tf.saved_model.load(str(export)).signatures


def test_without_eval_steps_the_whole_set_is_evaluated(tmp_path):
    """TFX says None where EvalArgs have no num_steps."""

    def make(files, training):
        return linear.input_fn if training else linear.eval_input_fn  # two batches of 8

    def receiver_fn():
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="x")
        return estimator.export.ServingInputReceiver({"x": x}, {"x": x})

    etl.tfx.run_fn(linear.model_fn, make, receiver_fn)(fn_args(tmp_path, eval_steps=None))
    (result,) = read_history(str(tmp_path / "run"))
    assert result["global_step"] == 4
    assert result["loss"] == pytest.approx(linear.eval_loss(linear.kernel_after(4)), rel=1e-5)
    assert (tmp_path / "serving" / "saved_model.pb").is_file()


@pytest.mark.parametrize("name", ["train_files", "eval_files", "train_steps"])
def test_arguments_of_tfx_that_lack_something(hub_module, tmp_path, name):
    run = etl.tfx.run_fn(model_fn_of(hub_module), make_input_fn([]), receiver)
    with pytest.raises(UserError) as raised:
        run(fn_args(tmp_path, **{name: None}))
    assert str(raised.value) == (
        f"TFX's arguments have no {name}; give the Trainer examples, and train_args with num_steps above 0."
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("in_memory", [pytest.param({}, marks=pytest.mark.full), {"eval_every_steps": 2}])
def test_evaluation_has_the_params_of_the_estimator(tmp_path, in_memory):
    def batches(params):
        return linear.input_fn(params["batch_size"]).take(2)

    def model_fn(features, labels, mode, params):
        assert params["batch_size"] == 8
        return linear.model_fn(features, labels, mode)

    model = estimator.Estimator(model_fn, str(tmp_path), params={"batch_size": 8})
    specs = estimator.TrainSpec(linear.input_fn, max_steps=4), estimator.EvalSpec(batches, steps=None)
    assert etl.train_and_evaluate(model, *specs, metric="loss", **in_memory).metrics["global_step"] == 4


@pytest.mark.full
def test_a_tpu_estimator_on_the_cpu_gives_its_batch_size(tmp_path):
    api = load_v1_estimator().tpu
    seen = []

    def batches(params):
        seen.append(params["batch_size"])
        return linear.input_fn(params["batch_size"]).take(2)

    def model_fn(features, labels, mode, params):
        return linear.model_fn(features, labels, mode)

    def made(**options):
        config = api.RunConfig(model_dir=str(tmp_path))
        return api.TPUEstimator(model_fn, config=config, train_batch_size=16, eval_batch_size=8, **options)

    specs = (
        estimator.TrainSpec(lambda params: linear.input_fn(params["batch_size"]), max_steps=4),
        estimator.EvalSpec(batches, steps=None),
    )
    outcome = etl.train_and_evaluate(made(use_tpu=False), *specs, metric="loss")
    assert (outcome.global_step, set(seen)) == (4, {8})
    with pytest.raises(UserError, match="does not support a TPUEstimator with use_tpu=True"):
        etl.train_and_evaluate(made(use_tpu=True), *specs, metric="loss")
