"""Ends of training before its last step, in one process: what is saved, said, and gone on with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from estimator_tl.compat import tf
from estimator_tl.inputs import latest_step
from estimator_tl.launch import training
from estimator_tl.launch.evaluating.evaluation import read_history
from estimator_tl.launch.run import session
from estimator_tl.launch.stopping import Stop, StopEvaluationHook, StopHook, StopRequests, stopping_at_signals
from tests.checkpoints import checkpoint_values
from tests.runs import train

ROOT = Path(__file__).resolve().parents[2]
STOPPED = 143
STEPS = 800
EVERY = 150


def result(model_dir):
    return json.loads((model_dir / "run.json").read_text())["result"]


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_first_request_counts():
    requests = StopRequests()
    assert requests.pending() is None
    requests.ask("good enough", resumes=False)
    requests.ask("SIGTERM", resumes=True)
    assert requests.pending() == Stop("good enough", resumes=False)


def test_a_limit_passes():
    assert StopRequests(max_hours=1.0).pending() is None
    assert StopRequests(max_hours=1e-12).pending() == Stop("--max_run_hours=1e-12 have passed", resumes=False)


def test_others_are_asked_until_one_answers():
    requests, asked = StopRequests(), []
    answers = iter([None, Stop("lost", resumes=True)])
    requests.watch(lambda: asked.append("other") or next(answers))
    assert requests.pending() is None
    assert requests.pending() == requests.pending() == Stop("lost", resumes=True)
    assert len(asked) == 2


def test_the_hook_ends_the_step_in_which_it_is_asked():
    requests = StopRequests()
    with tf.Graph().as_default():
        step = tf.compat.v1.train.get_or_create_global_step()
        one_more = tf.compat.v1.assign_add(step, 1)
        with tf.compat.v1.train.MonitoredSession(hooks=[StopHook(requests, 10)]) as monitored:
            assert monitored.run(one_more) == 1
            assert not monitored.should_stop()
            requests.ask("enough", resumes=False)
            assert monitored.run(one_more) == 2
            assert monitored.should_stop()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_signals_ask_and_are_handled_as_before_afterwards(name):
    requests, heard = StopRequests(), []
    number = getattr(signal, name)
    before = signal.signal(number, lambda *_: heard.append(name))
    try:
        with stopping_at_signals(requests):
            os.kill(os.getpid(), number)
            wait_for(lambda: requests.stop)
        assert requests.stop == Stop(name, resumes=True)
        assert not heard
        os.kill(os.getpid(), number)
        wait_for(lambda: heard)
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(number, before)


def test_limits_and_decisions_end_a_run_that_goes_on_later(keras_h5, pictures, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--validation_fraction=0.2", "--save_checkpoints_steps=3"]

    train(run, keras_h5, pictures, 12, *flags, "--max_run_hours=1e-9")
    printed = capsys.readouterr()
    assert latest_step(str(run)) == 1
    assert "stopped at step 1: --max_run_hours=1e-09 have passed\n" in printed.err
    assert "1 steps in" in printed.out
    assert result(run)["stop"] == {"reason": "--max_run_hours=1e-09 have passed", "resumes": False}

    first = read_history(str(run))
    (run / "evaluations.jsonl").unlink()  # or this rule would end the run where it is
    train(run, keras_h5, pictures, 12, *flags, "--stop_at=0")
    assert latest_step(str(run)) == 3
    reason = result(run)["stop"]["reason"]
    assert re.fullmatch(r"accuracy [\d.]+ has reached 0", reason)
    assert f"stopped at step 3: {reason}\n" in capsys.readouterr().err

    train(run, keras_h5, pictures, 12, *flags, "--stop_at=0")  # as a scheduler may start it again
    assert latest_step(str(run)) == 3
    assert f"stopped at step 3: {reason}\n" in capsys.readouterr().err
    assert result(run)["global_step"] == 3

    known = [*first, *read_history(str(run))]
    assert [item["global_step"] for item in known] == [1, 3]
    known[0]["accuracy"] = 2.0  # which nothing will reach
    (run / "evaluations.jsonl").write_text("".join(json.dumps(item) + "\n" for item in known))
    train(run, keras_h5, pictures, 12, *flags, "--early_stopping_steps=8")
    assert [item["global_step"] for item in read_history(str(run))] == [1, 3, 6, 9]
    assert latest_step(str(run)) == 9
    assert result(run)["stop"]["reason"] == "accuracy has not got better than 2 since step 1"
    assert "stopped at step 9: accuracy has not got better than 2 since step 1\n" in capsys.readouterr().err


def test_a_signal_in_an_evaluation_keeps_the_checkpoint(keras_h5, pictures, tmp_path, monkeypatch, capsys):
    class Killed(StopEvaluationHook):
        def before_run(self, run_context):
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for(lambda: self._requests.stop)

    monkeypatch.setattr(training, "StopEvaluationHook", Killed)
    run, handlers = tmp_path / "run", [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    flags = ["--validation_fraction=0.2", "--save_checkpoints_steps=2", "--exporters=final"]
    train(run, keras_h5, pictures, 6, *flags, code=STOPPED)
    assert latest_step(str(run)) == 2
    assert read_history(str(run)) == []
    assert result(run)["stop"] == {"reason": "SIGTERM", "resumes": True}
    assert not (run / "export").exists()
    assert "stopped at step 2: SIGTERM\nthe checkpoint is saved; run the same" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == handlers


def test_a_signal_while_the_backbone_is_read_leaves_nothing(keras_h5, pictures, tmp_path, monkeypatch, capsys):
    opened = session.open_backbone

    def killed(model, rules):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        return opened(model, rules)

    monkeypatch.setattr(session, "open_backbone", killed)
    train(tmp_path / "run", keras_h5, pictures, 6, code=STOPPED)
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err.endswith("stopped at step 0: SIGTERM\nrun the same command to go on\n")


def command(model_dir, source, pictures):
    flags = {
        "backbone": source.handle,
        "train_data": pictures,
        "model_dir": model_dir,
        "train_steps": STEPS,
        "batch_size": 7,
        "save_checkpoints_steps": EVERY,
        "keep_checkpoint_max": 0,
        "validation_fraction": 0,
        "tuning": "last_layers(3)",
        "head": "classifier(hidden_units=[8], dropout=0.3)",
    }
    given = [f"--{name}={value}" for name, value in flags.items()]
    return [sys.executable, "-m", "estimator_tl", "train", "--deterministic", "--backbone_dropout=false", *given]


def start(*arguments):
    return subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def step_of(model_dir):
    saved = [int(path.stem.split("-")[1]) for path in model_dir.glob("model.ckpt-*.index")]
    return max(saved, default=-1)


def stopped_by(sent, model_dir, source, pictures):
    """Sends a signal after the first checkpoint that a process writes; returns the step where it stopped."""
    before = step_of(model_dir)
    process = start(model_dir, source, pictures)
    try:
        wait_for(lambda: step_of(model_dir) > before or process.poll() is not None)
        time.sleep(0.05)
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == STOPPED, err
    step = latest_step(str(model_dir))
    assert result(model_dir)["global_step"] == step
    assert result(model_dir)["stop"] == {"reason": sent.name, "resumes": True}
    assert f"stopped at step {step}: {sent.name}" in err
    return step


def test_a_run_stopped_by_signals_ends_as_one_that_was_not(keras_h5, pictures, tmp_path):
    whole = start(tmp_path / "whole", keras_h5, pictures)
    run = tmp_path / "run"
    first = stopped_by(signal.SIGTERM, run, keras_h5, pictures)
    second = stopped_by(signal.SIGUSR1, run, keras_h5, pictures)
    assert 0 < first < second < STEPS
    assert {first % EVERY, second % EVERY} != {0}  # saved where they stopped
    last = start(run, keras_h5, pictures)
    for process in (whole, last):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert result(run)["steps"] == STEPS - second
    expected, found = (checkpoint_values(folder / f"model.ckpt-{STEPS}") for folder in (tmp_path / "whole", run))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
