"""One process owns a run directory while it trains."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator
from estimator_tl.errors import UserError
from estimator_tl.launch.run import ownership
from estimator_tl.launch.run.ownership import LOCK, owning
from tests.cli.refusals import refused
from tests.runs import files, train
from tests.tiny import random_batches

OWNER = """
import sys, time
from estimator_tl.launch.run.ownership import owning
with owning(sys.argv[1]):
    print("owned", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    """A process that owns a run."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "owned\n"
    yield process
    process.kill()
    process.wait()


def message(run, pid=r"\d+"):
    since = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    who = rf"process {pid} on {re.escape(socket.gethostname())}, since {since}"
    return rf"{run} is being trained by {who}; wait for its end, end it, or use another --model_dir\."


def test_a_second_command_and_a_second_program_are_refused(owner, keras_h5, pictures, tmp_path, capsys):
    run = tmp_path / "run"
    before = files(run)
    given = [f"--backbone={keras_h5.handle}", f"--train_data={pictures}", "--train_steps=1"]
    line = refused(capsys, "train", *given, f"--model_dir={run}")
    assert re.fullmatch(f"error: {message(run, owner.pid)}\n", line)
    model = estimator.Estimator(lambda features, labels, mode: None, str(run))
    with pytest.raises(UserError, match=message(run, owner.pid)):
        etl.train_and_evaluate(model, estimator.TrainSpec(random_batches(8), max_steps=1))
    assert files(run) == before


def test_a_killed_owner_does_not_block(owner, keras_h5, pictures, tmp_path):
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    run = tmp_path / "run"
    assert json.loads((run / LOCK).read_text())["pid"] == owner.pid
    began = time.monotonic()
    with owning(str(run)):
        assert json.loads((run / LOCK).read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < 1
    train(run, keras_h5, pictures, 1)
    assert not (run / LOCK).exists()


def test_others_may_look_while_a_run_is_owned(keras_h5, pictures, tmp_path, capsys):
    from estimator_tl.cli.main import main

    run = tmp_path / "run"
    train(run, keras_h5, pictures, 1)
    with owning(str(run)):
        for command in (["evaluate", "--split=all"], ["predict", f"--input={pictures}"], ["export"], ["inspect"]):
            assert main([command[0], f"--model_dir={run}", *command[1:]]) == 0


def test_of_many_that_begin_at_once_one_owns(tmp_path):
    inside, most, refusals = [], [], []

    def take():
        for _ in range(20):
            try:
                with owning(str(tmp_path / "run")):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.001)
                    inside.pop()
            except UserError as error:
                refusals.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert len(most) + len(refusals) == 80
    assert all("is being trained by" in refusal for refusal in refusals)


def test_what_was_not_there_before_is_gone_afterwards(tmp_path):
    with pytest.raises(KeyError), owning(str(tmp_path / "some/deep/run")):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with owning(str(tmp_path / "run")):
        (tmp_path / "run/kept").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    line = f"cannot write to {tmp_path}/file/run (Not a directory); choose a folder that you may write."
    with pytest.raises(UserError, match=re.escape(line)), owning(str(tmp_path / "file/run")):
        raise AssertionError


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A lock that a process on another machine has left, which no lock of this system tells of."""
    monkeypatch.setattr(ownership, "_SILENT_SECS", 1.0)
    monkeypatch.setattr(ownership, "_LOOK_SECS", 0.05)
    path = tmp_path / LOCK
    path.write_text(json.dumps({"host": "node7", "pid": 5, "since": "2024-01-01 00:00:00", "machine": "another"}))
    return path


def test_an_owner_on_another_machine_blocks_while_it_beats(elsewhere, tmp_path):
    stopped = threading.Event()
    with open(elsewhere, "ab") as stream:
        beating = threading.Thread(target=ownership._beat, args=(stream, stopped))
        ownership._HEARTBEAT_SECS, usual = 0.2, ownership._HEARTBEAT_SECS
        try:
            beating.start()
            line = f"{tmp_path} is being trained by process 5 on node7, since 2024-01-01 00:00:00; wait for its end"
            with pytest.raises(UserError, match=re.escape(line)), owning(str(tmp_path)):
                raise AssertionError
        finally:
            ownership._HEARTBEAT_SECS = usual
            stopped.set()
            beating.join()
    assert json.loads(elsewhere.read_text())["host"] == "node7"


def test_a_silent_owner_on_another_machine_does_not_block(elsewhere, tmp_path):
    with owning(str(tmp_path)):
        assert json.loads(elsewhere.read_text())["pid"] == os.getpid()
    assert not elsewhere.exists()


def test_where_the_file_system_has_no_locks_the_beat_counts(elsewhere, tmp_path, monkeypatch):
    import fcntl

    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(ownership, "_HEARTBEAT_SECS", 0.2)
    with owning(str(tmp_path)), pytest.raises(UserError, match=message(tmp_path, os.getpid())), owning(str(tmp_path)):
        raise AssertionError
