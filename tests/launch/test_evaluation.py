"""Evaluations of a run: when, what they decide, and what is exported after them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator
from estimator_tl.config import EvaluationSpec
from estimator_tl.errors import UserError
from estimator_tl.export import BestExporter
from estimator_tl.launch.evaluating import listeners
from estimator_tl.launch.evaluating.evaluation import HISTORY, Evaluator, finish, read_history, reason_to_stop
from estimator_tl.launch.evaluating.listeners import EvaluationListener
from estimator_tl.launch.hooks import ReachedHook
from estimator_tl.launch.stopping import EvaluationStopped, StopRequests
from tests import linear
from tests.cli.refusals import refused
from tests.runs import save_checkpoint, train


def history(*values, metric="accuracy", every=10):
    """Evaluations with these values of a metric, every so many steps."""
    return [{metric: value, "global_step": every * (number + 1)} for number, value in enumerate(values)]


@pytest.mark.parametrize(
    ("rules", "values", "expected"),
    [
        ({}, [0.5, 0.5, 0.5, 0.5], None),
        ({"early_stopping_steps": 20}, [0.5, 0.6, 0.6], None),
        ({"early_stopping_steps": 20}, [0.5, 0.6, 0.6, 0.55], "accuracy has not got better than 0.6 since step 20"),
        ({"early_stopping_steps": 20}, [0.6, 0.5, 0.61], None),
        ({"early_stopping_steps": 15}, [0.6, 0.5], None),
        ({"early_stopping_steps": 15, "metric_goal": "min"}, [0.5, 0.6, 0.6], "better than 0.5 since step 10"),
        ({"early_stopping_steps": 15, "metric_goal": "min"}, [0.6, 0.5, 0.4], None),
        ({"early_stopping_steps": 20}, [0.5, math.nan, math.nan], "better than 0.5 since step 10"),
        ({"early_stopping_steps": 20}, [math.nan, math.nan, 0.1], None),
        ({"early_stopping_steps": 30}, [math.nan, math.nan], None),
        ({"early_stopping_steps": 30}, [math.nan] * 3, "accuracy has been NaN for 30 steps"),
        ({"stop_at": 0.9}, [0.95, 0.8], None),
        ({"stop_at": 0.9}, [0.8, 0.9], "accuracy 0.9 has reached 0.9"),
        ({"stop_at": 0.9}, [math.nan], None),
        ({"stop_at": 0.9, "metric_goal": "min"}, [0.95], None),
        ({"stop_at": 0.9, "metric_goal": "min"}, [0.85], "has reached"),
    ],
)
def test_reasons_to_stop(rules, values, expected):
    reason = reason_to_stop(EvaluationSpec(**rules), history(*values))
    assert (reason is None) if expected is None else expected in str(reason)


@pytest.mark.parametrize(
    ("metric", "goal", "sign"),
    [
        ("accuracy", "auto", 1),
        ("auc", "auto", 1),
        ("loss", "auto", -1),
        ("average_loss", "auto", -1),
        ("mean_absolute_error", "auto", -1),
        ("loss", "max", 1),
        ("accuracy", "min", -1),
    ],
)
def test_directions(metric, goal, sign):
    assert EvaluationSpec(metric=metric, metric_goal=goal).sign == sign


def test_a_metric_that_is_not_there():
    with pytest.raises(UserError, match="no metric 'acuracy'; did you mean 'accuracy'"):
        reason_to_stop(EvaluationSpec(metric="acuracy", stop_at=0.5), history(0.1))
    assert reason_to_stop(EvaluationSpec(metric="acuracy"), history(0.1)) is None
    assert reason_to_stop(EvaluationSpec(stop_at=0.5), []) is None


class FakeEstimator:
    """Gives the metrics of one step after the other, and notes which checkpoint was asked for."""

    def __init__(self, model_dir, *metrics):
        self.model_dir, self._metrics, self.asked = str(model_dir), iter(metrics), []

    def evaluate(self, input_fn, steps, checkpoint_path, hooks, name):
        self.asked.append((steps, checkpoint_path))
        return next(self._metrics)


def test_an_evaluator_remembers_what_was_before_a_restart(tmp_path):
    rules = EvaluationSpec(early_stopping_steps=20, eval_steps=3)
    first, second, third, fourth = history(0.6, 0.5, 0.5, 0.7)
    saved = [save_checkpoint(tmp_path, step) for step in (10, 20, 30, 40)]
    model = FakeEstimator(tmp_path, first, fourth)
    evaluator = Evaluator(model, None, rules=rules)
    assert [evaluator.evaluate(saved[0]), evaluator.evaluate()] == [None, None]
    assert model.asked == [(3, saved[0]), (3, saved[3])]
    assert evaluator.metrics == fourth
    started_again = Evaluator(FakeEstimator(tmp_path, second, third), None, rules=rules)
    assert started_again.evaluate(saved[1]) is None
    assert "better than 0.6 since step 10" in started_again.evaluate(saved[2])
    set_back = Evaluator(FakeEstimator(tmp_path, second, third, fourth), None, rules=rules)
    assert set_back.evaluate(saved[1]) is None
    assert read_history(str(tmp_path)) == [first, second]
    assert set_back.evaluate(saved[2]) is not None
    assert set_back.evaluate(saved[3]) is None
    assert read_history(str(tmp_path)) == [first, second, third, fourth]


def test_metrics_of_another_step_than_the_checkpoints_are_an_error(tmp_path):
    evaluator = Evaluator(FakeEstimator(tmp_path, {"accuracy": 0.5, "global_step": 0}, *history(0.5)), None)
    with pytest.raises(UserError, match="holds no checkpoint to evaluate; train to its first one"):
        evaluator.evaluate()
    saved = save_checkpoint(tmp_path, 10)
    message = f"the evaluation is of step 0, but {saved} was saved at step 10; let nothing else write to the "
    with pytest.raises(UserError, match=re.escape(message)):
        evaluator.evaluate()
    with pytest.raises(UserError, match=f"the evaluation is of step 10, but {saved} was saved at step 20; let"):
        evaluator.evaluate(at_least=20)
    assert not (tmp_path / HISTORY).exists()


def test_a_final_export_of_another_step_than_the_metrics_is_an_error(tmp_path):
    save_checkpoint(tmp_path, 10)
    evaluator = Evaluator(FakeEstimator(tmp_path, *history(0.5)), None)
    evaluator.evaluate()
    saved = save_checkpoint(tmp_path, 20)
    with pytest.raises(UserError, match=f"the evaluation is of step 10, but {saved} was saved at step 20; let"):
        evaluator.finish()


def test_a_step_that_no_checkpoint_has_is_an_error(tmp_path):
    save_checkpoint(tmp_path, 10)
    reached = ReachedHook()
    reached.step = 10
    reached.check_saved(str(tmp_path))
    reached.step = 11
    message = f"training reached step 11, but the newest whole checkpoint in {tmp_path} is of step 10; let nothing"
    with pytest.raises(UserError, match=message):
        reached.check_saved(str(tmp_path))


def test_a_torn_line_costs_only_itself(tmp_path):
    first, second, third = history(0.1, 0.2, 0.3)
    path = tmp_path / HISTORY
    assert read_history(str(tmp_path)) == []
    path.write_text(json.dumps(first) + "\n" + json.dumps(second)[:12])
    assert read_history(str(tmp_path)) == [first]
    save_checkpoint(tmp_path, 30)
    Evaluator(FakeEstimator(tmp_path, third), None).evaluate()
    assert read_history(str(tmp_path)) == [first, third]


EMPTY = (
    "the evaluation's input_fn gives no batch, so there is no loss to report; look at its files and filters, or leave "
    "the evaluation out."
)


@pytest.mark.parametrize("settings", [{}, {"eval_every_steps": 2, "metric": "loss"}, {"eval_steps": 3}])
def test_an_evaluation_of_nothing_is_an_error(settings, tmp_path):
    model = estimator.Estimator(linear.model_fn, str(tmp_path), estimator.RunConfig(save_checkpoints_steps=2))
    nothing = estimator.EvalSpec(lambda: linear.eval_input_fn().take(0), steps=None)
    with pytest.raises(UserError) as caught:
        etl.train_and_evaluate(model, estimator.TrainSpec(linear.input_fn, max_steps=4), nothing, **settings)
    assert str(caught.value) == EMPTY
    assert read_history(str(tmp_path)) == []
    etl.train_and_evaluate(model, estimator.TrainSpec(linear.input_fn, max_steps=4))
    np.testing.assert_allclose(model.get_variable_value("kernel"), linear.kernel_after(4), rtol=1e-5)


def test_the_best_export_ignores_an_evaluation_of_nothing(tmp_path):
    exporter = BestExporter(lambda: None, metric="loss")
    nothing = {"loss": np.float32(0.0), "accuracy": np.float32(0.0), "global_step": 3}
    assert exporter.export(None, str(tmp_path), "", nothing, is_the_final_export=False) is None
    assert list(tmp_path.iterdir()) == []


class FakeEvaluator(Evaluator):
    """Notes how often it is asked."""

    def __init__(self, reasons=(), error=None):
        self.metrics, self.count, self.step, self.finished = None, 0, 0, False
        self._reasons, self._error = dict(enumerate(reasons)), error

    def evaluate(self, at_least=0):
        if self._error:
            raise self._error
        self.metrics, self.count = {"n": self.count, "global_step": self.step}, self.count + 1
        return self._reasons.get(self.count - 1)

    def finish(self):
        self.finished = True


def evaluated(steps, **options):
    """Which of the saved steps a listener evaluates."""
    evaluator = FakeEvaluator()
    listener = EvaluationListener(evaluator, StopRequests(), **{"start_step": 0, "total": 100, **options})
    found = []
    for step in steps:
        count = evaluator.count
        assert not listener.after_save(None, step)
        if evaluator.count > count:
            found.append(step)
    return found


def test_which_checkpoints_are_evaluated():
    assert evaluated([0, 3, 5, 9]) == [3, 5, 9]
    assert evaluated([0, 3, 5, 5, 10, 10], every=5) == [5, 10]
    assert evaluated([20, 23, 25], start_step=20) == [23, 25]
    assert evaluated([0, 5, 97, 98], every=5, total=98) == [5, 98]


def test_the_throttle_leaves_out_all_but_the_last(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(listeners.time, "monotonic", lambda: now[0])

    def steps():
        for step in (10, 20, 30, 40, 100):
            yield step
            now[0] += 4.0

    assert evaluated(steps(), throttle_secs=9.0) == [10, 40, 100]


def test_a_reason_ends_training_with_the_step_that_was_evaluated():
    requests = StopRequests()
    listener = EvaluationListener(FakeEvaluator([None, "good enough"]), requests, start_step=0, total=100)
    assert [listener.after_save(None, step) for step in (1, 2)] == [False, True]
    assert (requests.stop.reason, requests.stop.resumes) == ("good enough", False)


def test_nothing_is_evaluated_after_a_signal():
    requests, evaluator = StopRequests(), FakeEvaluator()
    requests.ask("SIGTERM", resumes=True)
    assert not EvaluationListener(evaluator, requests, start_step=0, total=2).after_save(None, 2)
    assert evaluator.count == 0


def test_the_end_evaluates_only_what_was_not():
    evaluator = FakeEvaluator()
    assert finish(evaluator, 0)["n"] == 0  # a run with nothing left to train
    evaluator.step = 9
    EvaluationListener(evaluator, StopRequests(), start_step=0, total=9).after_save(None, 9)
    assert finish(evaluator, 9)["n"] == 1
    assert evaluator.count == 2
    assert finish(evaluator, 10)["n"] == 2


def test_a_signal_in_the_last_evaluation_leaves_without_metrics_and_exports():
    evaluator = FakeEvaluator(error=EvaluationStopped())
    assert finish(evaluator, 9) == {}
    assert not evaluator.finished


def versions(model_dir, exporter):
    return sorted(path.name for path in Path(model_dir, "export", exporter).glob("[0-9]*"))


def test_exports_of_a_run_and_after_its_restart(keras_h5, pictures, tmp_path, capfd):
    run = tmp_path / "run"
    flags = ["--validation_fraction=0.2", "--save_checkpoints_steps=2", "--exporters=best,final,latest"]
    flags += ["--metric=loss", "--exports_to_keep=2", "--learning_rate=0.05"]
    train(run, keras_h5, pictures, 6, *flags)
    made = read_history(str(run))
    assert [item["global_step"] for item in made] == [2, 4, 6]
    best = min(made, key=lambda item: item["loss"])
    assert json.loads((run / "export/best/best.json").read_text()) == {
        "loss": best["loss"],
        "global_step": best["global_step"],
    }
    bests, finals, latest = (versions(run, name) for name in ("best", "final", "latest"))
    assert (len(finals), len(latest)) == (1, 2)
    assert 1 <= len(bests) <= 2
    for name, version in (("best", bests[-1]), ("final", finals[0]), ("latest", latest[1])):
        assert (run / "export" / name / version / "saved_model.pb").is_file()
        assert (run / "export" / name / version / "assets.extra/labels.txt").read_text() == "cat\ndog\nowl\n"

    (run / "export/best/best.json").write_text('{"loss": 0.0, "global_step": 4}\n')  # nothing is better
    train(run, keras_h5, pictures, 8, *flags)
    assert versions(run, "best") == bests
    assert json.loads((run / "export/best/best.json").read_text())["loss"] == 0.0
    assert len(versions(run, "final")) == 2
    assert [item["global_step"] for item in read_history(str(run))] == [2, 4, 6, 8]
    assert versions(run, "latest")[0] == latest[1]  # one more, none twice
    assert re.findall(r"evaluation at step (\d+)", capfd.readouterr().err) == ["2", "4", "6", "8"]

    before = {name: versions(run, name) for name in ("best", "final", "latest")}
    train(run, keras_h5, pictures, 8, *flags)  # nothing is left to do
    assert {name: versions(run, name) for name in before} == before
    assert re.findall(r"evaluation at step (\d+)", capfd.readouterr().err) == ["8"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--exporters=best,last", "unknown exporter 'last'"),
        ("--metric_goal=up", "metric_goal"),
        ("--early_stopping_steps=0", "--early_stopping_steps=0 must be at least 1"),
        ("--eval_steps=-1", "--eval_steps=-1 must be at least 1"),
        ("--exports_to_keep=0", "--exports_to_keep=0 must be at least 1"),
        ("--eval_throttle_secs=-1", "--eval_throttle_secs=-1 must be at least 0"),
        ("--stop_at=high", "stop_at"),
        ("--stop_at=0.5 --validation_fraction=0", "stop_at needs evaluations"),
        ("--early_stopping_steps=5 --validation_fraction=0", "early_stopping_steps needs"),
        ("--exporters=final --validation_fraction=0", "exporters needs"),
        ("--stop_at=0.5 --metric=acuracy", "did you mean 'accuracy'"),
        ("--exporters=best --metric=f1", "has no metric 'f1'"),
        ("--cpu_replicas=2 --all_reduce_alg=ring", "all_reduce_alg of mirrored"),
        ("--cpu_replicas=2 --batch_size=7", "use e.g. --batch_size=6"),
        ("--session_config=threads:1", "session_config is not a ConfigProto"),
        ("--num_gpus=99", "num_gpus 99, but TensorFlow sees 0"),
        ("--distribution=parameter_server", "needs a cluster"),
        ("--precision=half", "precision"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_written(flag, message, keras_h5, pictures, tmp_path, capsys):
    given = [f"--backbone={keras_h5.handle}", f"--train_data={pictures}", f"--model_dir={tmp_path / 'run'}"]
    assert message in refused(capsys, "train", *given, *flag.split())
    assert not (tmp_path / "run").exists()
