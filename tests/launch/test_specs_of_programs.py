"""What a TrainSpec and an EvalSpec say is what `etl.train_and_evaluate` does, and what ends training early is said."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.config import EvaluationSpec, LaunchSpec
from estimator_tl.errors import UserError
from estimator_tl.inputs import latest_step
from estimator_tl.launch.cluster import rendezvous
from estimator_tl.launch.evaluating.evaluation import read_history
from estimator_tl.launch.programs import ProgramJob, _rules_of
from estimator_tl.launch.stopping import Stop
from tests import linear
from tests.cluster import Cluster
from tests.runs import train, written

PROGRAM = Path(__file__).parent.parent / "programs" / "finite_data.py"


def batches(count):
    return lambda: linear.input_fn().take(count)


def run(model_dir, train_input=linear.input_fn, steps=100, hooks=(), evaluation=None, every=5, **settings):
    config = etl.run_config(str(model_dir), save_checkpoints_steps=every)
    model = estimator.Estimator(linear.model_fn, config=config)
    training = estimator.TrainSpec(train_input, max_steps=steps, hooks=list(hooks))
    if evaluation == "default":
        evaluation = estimator.EvalSpec(linear.eval_input_fn)
    return etl.train_and_evaluate(model, training, evaluation, metric="loss", **settings)


# Data that end early.


@pytest.mark.parametrize("settings", [{}, {"eval_every_steps": 4}], ids=["checkpoints", "in memory"])
def test_data_that_end_are_told(tmp_path, capsys, settings):
    outcome = run(tmp_path, batches(10), evaluation="default", **settings)
    assert outcome.stop == Stop("the training data ended before step 100", resumes=False)
    assert (outcome.global_step, outcome.steps, outcome.exit_code) == (10, 10, 0)
    assert outcome.metrics["global_step"] == 10
    assert outcome.metrics["loss"] == pytest.approx(linear.eval_loss(linear.kernel_after(10)), rel=1e-5)
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("stopped at step 10: the training data ended before step 100") == 1


def test_data_that_end_with_the_last_step_are_enough(tmp_path, capsys):
    outcome = run(tmp_path, batches(10), steps=10)
    assert (outcome.global_step, outcome.stop) == (10, None)
    assert "stopped" not in capsys.readouterr().err


def test_a_run_goes_on_with_new_data(tmp_path):
    run(tmp_path, batches(10))
    outcome = run(tmp_path, batches(10))
    assert (outcome.global_step, outcome.steps) == (20, 10)
    assert outcome.stop == Stop("the training data ended before step 100", resumes=False)


def test_no_data_at_all_are_refused(tmp_path):
    with pytest.raises(UserError) as raised:
        run(tmp_path, batches(0), evaluation="default")
    assert str(raised.value) == ("the input_fn of training gives no batch, so nothing is trained; check its data.")
    assert not read_history(str(tmp_path))


def test_data_that_end_in_a_phase_end_the_run(tmp_path):
    """The next phase would begin with its data from the beginning, at a step that is not its own."""
    model = estimator.Estimator(linear.model_fn, str(tmp_path))
    job = ProgramJob(model, estimator.TrainSpec(batches(3), max_steps=20), None, EvaluationSpec(), LaunchSpec())
    job.parts = lambda: [(0, 5), (1, 20)]
    outcome = job.run()
    assert outcome.global_step == latest_step(str(tmp_path)) == 3
    assert outcome.stop == Stop("the training data ended before step 20", resumes=False)


class _StopAt(tf.compat.v1.train.SessionRunHook):
    def __init__(self, step):
        self._left = step

    def after_run(self, run_context, run_values):
        self._left -= 1
        if self._left == 0:
            run_context.request_stop()


def test_a_hook_that_ends_training_is_told(tmp_path, capsys):
    outcome = run(tmp_path, hooks=[_StopAt(7)])
    assert outcome.stop == Stop("a hook of the program ended training before step 100", resumes=False)
    assert (outcome.global_step, outcome.exit_code) == (7, 0)
    assert "stopped at step 7: a hook of the program ended training before step 100\n" in capsys.readouterr().err


@pytest.mark.full
@pytest.mark.parametrize(
    "jobs",
    [
        pytest.param({"chief": 1, "worker": 1, "ps": 1, "evaluator": 1}, id="parameter servers"),
        pytest.param({"worker": 2, "evaluator": 1}, id="multi-worker mirrored"),
    ],
)
def test_data_that_end_are_told_on_clusters(tmp_path, jobs):
    program = [str(PROGRAM), str(tmp_path / "run")]
    with Cluster(tmp_path / "logs", program, command=[sys.executable], **jobs) as cluster:
        cluster.start()
        cluster.wait_until(lambda: all(task.status == 0 for task in cluster.tasks.values()), "the end of all tasks")
        texts = {task.name: task.text for task in cluster.tasks.values()}
    for name, text in texts.items():
        (step,) = re.findall(r"^stopped at step (\d+): .*the training data ended before step 100$", text, re.MULTILINE)
        assert 10 <= int(step) <= 20, name
        assert f"OUTCOME {step} Stop(reason='the training data ended before step 100', resumes=False) 0" in text, name
    assert (tmp_path / "run" / "eval_holdout").is_dir()
    assert not (tmp_path / "run" / "eval").exists()


# What an EvalSpec says.


def test_the_name_of_an_evaluation_is_its_directory(tmp_path):
    run(tmp_path, steps=10, evaluation=estimator.EvalSpec(linear.eval_input_fn, name="holdout"))
    assert {step for _, step in written(tmp_path / "eval_holdout", "loss")} == {5, 10}
    assert not (tmp_path / "eval").exists()


def test_an_evaluation_in_memory_has_the_same_directory(tmp_path):
    named = estimator.EvalSpec(linear.eval_input_fn, name="holdout")
    run(tmp_path, steps=10, evaluation=named, every=10, eval_every_steps=4)
    assert {step for _, step in written(tmp_path / "eval_holdout", "loss")} == {4, 8, 10}
    assert not (tmp_path / "eval").exists()


def test_early_stopping_hooks_that_read_it_stop(tmp_path):
    """The loss of this model never gets below 0, so that the first evaluation ends training."""
    config = etl.run_config(str(tmp_path), save_checkpoints_steps=5)
    model = estimator.Estimator(linear.model_fn, config=config)
    hook = estimator.experimental.stop_if_lower_hook(
        model, "loss", threshold=1e9, eval_dir=model.eval_dir("holdout"), run_every_secs=None, run_every_steps=1
    )
    training = estimator.TrainSpec(linear.input_fn, max_steps=100, hooks=[hook])
    evaluation = estimator.EvalSpec(linear.eval_input_fn, name="holdout")
    outcome = etl.train_and_evaluate(model, training, evaluation, metric="loss")
    assert 5 <= outcome.global_step < 10
    assert outcome.stop == Stop("a hook of the program ended training before step 100", resumes=False)


@pytest.mark.parametrize(
    ("said", "settings", "rules"),
    [
        ({}, {}, (0.0, 100)),
        ({"throttle_secs": 600, "steps": None}, {}, (0.0, None)),
        ({"throttle_secs": 30, "steps": 7}, {}, (30, 7)),
        ({"throttle_secs": 0}, {}, (0, 100)),
        ({"throttle_secs": 30, "steps": 7}, {"eval_throttle_secs": 5.0, "eval_steps": 3}, (5.0, 3)),
    ],
)
def test_steps_and_seconds_of_an_eval_spec(said, settings, rules):
    found = EvaluationSpec(**{**_rules_of(estimator.EvalSpec(linear.eval_input_fn, **said)), **settings})
    assert (found.eval_throttle_secs, found.eval_steps) == rules


def test_seconds_between_evaluations(tmp_path):
    hourly = estimator.EvalSpec(linear.eval_input_fn, throttle_secs=3600)
    run(tmp_path, steps=20, evaluation=hourly)
    assert [item["global_step"] for item in read_history(str(tmp_path))] == [5, 20]  # the first and the last


class _Follower:
    """A chief that has ended once there was an evaluation."""

    state, is_running, reason = "running", True, ""

    def __init__(self, evaluated):
        self._evaluated = evaluated

    def announce_evaluator(self, stop_request=""):
        pass

    def look(self, at_most_every):
        pass

    def check_alive(self):
        if self._evaluated:
            self.state = rendezvous.DONE


class _Evaluator:
    metrics = None

    def __init__(self, evaluated):
        self._evaluated, self._began = evaluated, time.monotonic()

    def evaluate(self, checkpoint):
        self._evaluated.append(time.monotonic() - self._began)

    def finish(self):
        pass


@pytest.mark.parametrize(("said", "delay"), [({}, 0.0), ({"start_delay_secs": 1}, 1.0)])
def test_an_evaluator_waits_before_its_first_evaluation(tmp_path, said, delay):
    model = estimator.Estimator(linear.model_fn, config=etl.run_config(str(tmp_path)))
    model.train(linear.input_fn, max_steps=1)
    specs = estimator.TrainSpec(linear.input_fn, max_steps=5), estimator.EvalSpec(linear.eval_input_fn, **said)
    job = ProgramJob(model, *specs, EvaluationSpec(metric="loss"), LaunchSpec())
    evaluated = []
    job.evaluator = lambda: _Evaluator(evaluated)
    assert job.evaluator_delay_secs == delay
    job._evaluate(_Follower(evaluated))
    (waited,) = evaluated
    assert delay <= waited < delay + 0.9


def test_saving_listeners_are_those_of_the_chief(tmp_path):
    listener = tf.compat.v1.train.CheckpointSaverListener()
    training = estimator.TrainSpec(linear.input_fn, max_steps=5, saving_listeners=[listener])
    model = estimator.Estimator(linear.model_fn, config=etl.run_config(str(tmp_path)))
    job = ProgramJob(model, training, None, EvaluationSpec(), LaunchSpec())
    assert listener in job.saver([], str(tmp_path))._listeners
    assert listener not in job.saver([], str(tmp_path / "of a worker"))._listeners


def test_the_command_tells_and_keeps_it(keras_h5, pictures, tmp_path, capsys, monkeypatch):
    """A source of a user's module may give its data once."""
    from estimator_tl.inputs.folders.image_folder import ImageFolder

    repeated = ImageFolder.input_fn

    def once(self, *arguments, **options):
        return (
            repeated(self, *arguments, **options, epochs=1) if options.get("training") else repeated(self, *arguments)
        )

    monkeypatch.setattr(ImageFolder, "input_fn", once)
    train(tmp_path, keras_h5, pictures, 100)
    step = latest_step(str(tmp_path))
    assert 0 < step < 100
    told = f"stopped at step {step}: the training data ended before step 100\n"
    assert capsys.readouterr().err.count(told) == 1
    result = json.loads((tmp_path / "run.json").read_text())["result"]
    assert result["stop"] == {"reason": "the training data ended before step 100", "resumes": False}
