"""Evaluation of a training session without its checkpoints."""

from __future__ import annotations

import json

import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.config import EvaluationSpec
from estimator_tl.errors import UserError
from estimator_tl.launch.evaluating.evaluation import Evaluator
from estimator_tl.launch.evaluating.in_memory import InMemoryEvaluation, InMemoryHook, variables_of
from estimator_tl.launch.stopping import StopRequests
from tests.launched import saved_steps
from tests.linear import eval_input_fn, input_fn, model_fn
from tests.runs import train


def evaluations(model_dir):
    return [json.loads(line) for line in (model_dir / "evaluations.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        pytest.param(  # a graph for each phase
            "hub_module", ("--tuning=phases(phase(last_groups(2), 5), phase(full))",), marks=pytest.mark.full
        ),
        pytest.param("keras_h5", ("--tuning=phases(phase(frozen, 5), phase(full))",), marks=pytest.mark.full),
        ("keras_h5", ("--tuning=full", "--batch_norm=train")),  # statistics that move
        *(  # and of which each replica has its own
            pytest.param(
                name,
                ("--tuning=full", "--batch_norm=train", "--cpu_replicas=2", "--batch_size=8"),
                marks=pytest.mark.full,
            )
            for name in ("keras_h5", "hub_module")
        ),
    ],
)
def test_the_numbers_are_those_of_checkpoints(name, flags, request, pictures, tmp_path):
    source = request.getfixturevalue(name)
    flags = ("--validation_fraction=0.4", *flags, "--exporters=final")
    train(tmp_path / "saved", source, pictures, 8, *flags, "--save_checkpoints_steps=2")
    train(tmp_path / "held", source, pictures, 8, *flags, "--save_checkpoints_steps=100", "--eval_every_steps=2")
    assert saved_steps(tmp_path / "held") == [0, *([5] if "phases" in flags[1] else []), 8]
    saved, held = evaluations(tmp_path / "saved"), evaluations(tmp_path / "held")
    assert [item["global_step"] for item in held] == [2, 4, 6, 8]
    assert held == saved
    assert len({item["average_loss"] for item in held}) == 4
    assert len(list((tmp_path / "held" / "export" / "final").iterdir())) == 1
    assert list((tmp_path / "held" / "eval").glob("events.*"))


def test_rules_end_training_with_the_step_that_was_evaluated(keras_h5, pictures, tmp_path, capsys):
    flags = (
        "--validation_fraction=0.4",
        "--save_checkpoints_steps=100",
        "--eval_every_steps=3",
        "--metric=loss",
        "--stop_at=100",
    )
    train(tmp_path, keras_h5, pictures, 50, *flags)
    assert saved_steps(tmp_path) == [0, 3]
    assert "loss" in capsys.readouterr().err
    assert [item["global_step"] for item in evaluations(tmp_path)] == [3]


def linear_model(folder, **config):
    return estimator.Estimator(model_fn, str(folder), estimator.RunConfig(**config))


class Step(tf.compat.v1.train.SessionRunHook):
    """Lets the clock of a test go on with each step."""

    def __init__(self, clock):
        self._clock = clock

    def after_run(self, run_context, run_values):
        self._clock[0] += 1.0


@pytest.mark.full
def test_by_the_clock(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("estimator_tl.launch.evaluating.in_memory.time.monotonic", lambda: clock[0])
    linear = linear_model(tmp_path)
    evaluator = Evaluator(linear, eval_input_fn, rules=EvaluationSpec(eval_every_secs=4.0))
    linear.train(input_fn, max_steps=10, hooks=[Step(clock), InMemoryHook(evaluator, StopRequests(), 10)])
    assert [item["global_step"] for item in evaluations(tmp_path)] == [4, 8, 10]


@pytest.mark.full
def test_a_signal_leaves_an_evaluation_without_metrics(tmp_path):
    linear, requests = linear_model(tmp_path), StopRequests()
    linear.train(input_fn, max_steps=1)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.train.get_or_create_global_step()
        kernel = tf.compat.v1.get_variable("kernel", [3, 1])
        session.run([step.initializer, kernel.initializer])
        held = variables_of(session.graph)
        evaluation = InMemoryEvaluation(Evaluator(linear, eval_input_fn), requests, held)
        assert evaluation.measure(session, held, 7)["global_step"] == 7
        requests.ask("SIGTERM", resumes=True)
        assert evaluation.measure(session, held, 8) is None


def test_in_a_program(tmp_path):
    linear = linear_model(tmp_path)
    specs = (
        estimator.TrainSpec(input_fn, max_steps=6),
        estimator.EvalSpec(eval_input_fn, steps=None),
    )
    outcome = etl.train_and_evaluate(linear, *specs, metric="loss", eval_every_steps=2)
    assert [item["global_step"] for item in evaluations(tmp_path)] == [2, 4, 6]
    assert outcome.metrics == evaluations(tmp_path)[-1]
    checked = linear.evaluate(eval_input_fn)
    assert outcome.metrics == {name: float(value) for name, value in checked.items()}


def test_input_that_cannot_begin_again_is_refused(tmp_path):
    linear = linear_model(tmp_path)
    evaluator = Evaluator(linear, lambda: ({"x": tf.zeros([1, 1])}, tf.zeros([1])))
    with pytest.raises(UserError, match="let it return a Dataset"):
        InMemoryEvaluation(evaluator, StopRequests(), {})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--validation_fraction=0.4", "--exporters=best"),
            "exporter best exports evaluated checkpoints",
        ),
        ((), "eval_every_steps needs evaluations, but there is nothing to evaluate on"),
        (("--eval_every_secs=0",), "--eval_every_secs=0 must be above 0"),
    ],
)
def test_what_does_not_fit_is_said_before_training(flags, message, keras_h5, pictures, tmp_path, capsys):
    train(tmp_path / "run", keras_h5, pictures, 4, "--eval_every_steps=2", "--batch_size=8", *flags, code=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_not_more_often_than_asked(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("estimator_tl.launch.evaluating.in_memory.time.monotonic", lambda: clock[0])
    linear, rules = linear_model(tmp_path), EvaluationSpec(eval_every_steps=2, eval_throttle_secs=5.0)
    evaluator = Evaluator(linear, eval_input_fn, rules=rules)
    linear.train(input_fn, max_steps=15, hooks=[Step(clock), InMemoryHook(evaluator, StopRequests(), 15)])
    assert [item["global_step"] for item in evaluations(tmp_path)] == [2, 8, 14, 15]


def changed(change):
    """The linear model with another EstimatorSpec for evaluation, and steps of three calls."""

    def changed_model_fn(features, labels, mode):
        if mode != estimator.ModeKeys.EVAL:
            spec = model_fn(features, labels, mode)
            calls = tf.compat.v1.get_variable("calls", [], tf.int64, tf.compat.v1.zeros_initializer())
            step = tf.compat.v1.train.get_global_step()
            with tf.control_dependencies([tf.compat.v1.assign_add(calls, 1)]):
                return spec._replace(train_op=tf.compat.v1.assign(step, calls.read_value() // 3))
        return change(features, labels, mode)

    return changed_model_fn


@pytest.mark.full
def test_steps_of_several_calls_count_once(tmp_path):
    linear = estimator.Estimator(changed(model_fn), str(tmp_path))
    evaluator = Evaluator(linear, eval_input_fn, rules=EvaluationSpec(eval_every_steps=2))
    linear.train(input_fn, max_steps=5, hooks=[InMemoryHook(evaluator, StopRequests(), 5)])
    assert [item["global_step"] for item in evaluations(tmp_path)] == [2, 4, 5]


def with_averages(features, labels, mode):
    spec = model_fn(features, labels, mode)
    return spec._replace(scaffold=tf.compat.v1.train.Scaffold(saver=tf.compat.v1.train.Saver()))


def with_another_variable(features, labels, mode):
    with tf.compat.v1.variable_scope("other"):
        return model_fn(features, labels, mode)


def with_a_hook(features, labels, mode):
    return model_fn(features, labels, mode)._replace(evaluation_hooks=[tf.compat.v1.train.SessionRunHook()])


@pytest.mark.full
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_averages, "evaluates with its own Saver or local_init_op"),
        (with_another_variable, "variables that training lacks, e.g. other/kernel"),
        (with_a_hook, "evaluation_hooks, which an evaluation in memory cannot run"),
    ],
)
def test_what_would_give_other_numbers_than_a_checkpoint_is_refused(change, message, tmp_path):
    linear = estimator.Estimator(changed(change), str(tmp_path))
    specs = estimator.TrainSpec(input_fn, max_steps=4), estimator.EvalSpec(eval_input_fn, steps=None)
    with pytest.raises(UserError, match=message):
        etl.train_and_evaluate(linear, *specs, metric="loss", eval_every_steps=2)


def test_hooks_of_a_program_are_refused(tmp_path):
    hooks = [tf.compat.v1.train.SessionRunHook()]
    specs = estimator.TrainSpec(input_fn, max_steps=4), estimator.EvalSpec(eval_input_fn, hooks=hooks)
    with pytest.raises(UserError, match="no session for the hooks of the EvalSpec"):
        etl.train_and_evaluate(linear_model(tmp_path), *specs, metric="loss", eval_every_steps=2)


def test_a_chief_alone_is_told_that_it_evaluates_checkpoints(keras_h5, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"chief": ["localhost:1"]}, "task": {"type": "chief", "index": 0}}')
    train(tmp_path / "run", keras_h5, pictures, 4, "--eval_every_steps=2", "--validation_fraction=0.4", code=2)
    assert "work in one process only, not in a cluster or on a TPU" in capsys.readouterr().err
