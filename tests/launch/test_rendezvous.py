"""How tasks find the chief through the run directory, and notice that it is gone."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from estimator_tl.errors import LostPeersError, UserError
from estimator_tl.launch.cluster import rendezvous
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.launch.cluster.rendezvous import DONE, RUNNING, STARTING, STOPPED, Chief, Follower
from estimator_tl.launch.stopping import Stop

SETTINGS = {"training": {"batch_size": 8, "range": (0, 1)}, "model": "m"}


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(rendezvous, "_HEARTBEAT_SECS", 0.05)
    monkeypatch.setattr(rendezvous, "_UNSEEN_SECS", 0.3)


def follower(model_dir, settings=None, wait_secs=5.0, address="localhost:1"):
    cluster = Cluster({"chief": {0: address}, "worker": {0: "localhost:2"}}, "worker", 0, "TF_CONFIG")
    return Follower(str(model_dir), cluster, settings or SETTINGS, wait_secs)


def written(model_dir, **changes):
    """The mark of a chief that beats no more."""
    values = {"settings": SETTINGS, "started": 1.0, "state": RUNNING, "reason": "", "heartbeat": 7, **changes}
    (model_dir / rendezvous.FILE).write_text(json.dumps(values))


def test_a_task_that_comes_first_waits_for_the_chief(tmp_path):
    task, model_dir = follower(tmp_path / "run"), str(tmp_path / "run")
    joined = threading.Event()
    waiting = threading.Thread(target=lambda: (task.join(), joined.set()), daemon=True)
    waiting.start()
    assert not joined.wait(0.3)
    with Chief(model_dir, SETTINGS) as chief:
        assert joined.wait(5)
        assert task.state == STARTING
        ready = threading.Event()
        threading.Thread(target=lambda: (task.wait_until_ready(), ready.set()), daemon=True).start()
        assert not ready.wait(0.3)
        chief.ready()
        assert ready.wait(5)
        assert task.state == RUNNING
        task.check_alive()
        chief.end(DONE, "good enough")
    task.look()
    assert (task.state, task.reason) == (DONE, "good enough")


def test_nobody_waits_for_variables_where_all_make_them_together(tmp_path):
    written(tmp_path, state=STARTING)
    task = follower(tmp_path)
    task.look()
    began = time.monotonic()
    task.wait_until_ready(synchronous=True)
    assert time.monotonic() - began < 0.2
    assert task.state == STARTING


def test_other_settings_than_the_chiefs_are_named(tmp_path):
    with Chief(str(tmp_path), SETTINGS):
        task = follower(tmp_path, {"training": {"batch_size": 4, "range": (0, 1)}, "model": "m"})
        with pytest.raises(UserError, match=r"worker 0 has training.batch_size 4, but the chief has 8"):
            task.join()


def test_the_chief_does_not_come(tmp_path):
    with pytest.raises(LostPeersError, match="did not appear within 0.3 s"):
        follower(tmp_path, wait_secs=0.3).join()


@pytest.mark.parametrize("state", [STARTING, RUNNING])
def test_a_mark_that_does_not_beat_is_of_an_earlier_launch(tmp_path, state):
    written(tmp_path, state=state)
    with pytest.raises(LostPeersError, match="did not appear"):
        follower(tmp_path, wait_secs=0.3).join()


def test_a_task_that_is_started_again_after_the_end_leaves(tmp_path):
    written(tmp_path, state=DONE, reason="enough")
    task = follower(tmp_path, wait_secs=0.3)
    task.join()
    assert (task.state, task.reason) == (DONE, "enough")


def test_an_unreadable_mark_is_none(tmp_path):
    (tmp_path / rendezvous.FILE).write_text('{"settings": ')
    task = follower(tmp_path)
    assert not task.look()
    assert task.state == ""


def test_a_chief_that_is_there_and_writes_elsewhere(tmp_path):
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        listening.listen()
        address = f"localhost:{listening.getsockname()[1]}"
        with pytest.raises(UserError, match=f"the chief {address} runs, but its launch.json does not appear"):
            follower(tmp_path, address=address).join()


def test_a_chief_without_a_heartbeat_is_lost(tmp_path):
    task = follower(tmp_path, wait_secs=0.8)
    with Chief(str(tmp_path), SETTINGS) as chief:
        chief.ready()
        task.join()
        for _ in range(12):
            time.sleep(0.1)
            task.check_alive()  # longer than it waits, as the heartbeat continues
        chief._closed.set()
        time.sleep(0.1)
        task.look()
        time.sleep(1.0)
        with pytest.raises(LostPeersError, match="no heartbeat for 0.8 s"):
            task.check_alive()


def fails(model_dir, error=None):
    with Chief(str(model_dir), SETTINGS):
        if error:
            raise error


def test_a_chief_that_leaves_says_why(tmp_path):
    task = follower(tmp_path)
    with pytest.raises(ZeroDivisionError):
        fails(tmp_path, ZeroDivisionError("by zero"))
    task.look()
    assert (task.state, task.reason) == (STOPPED, "the chief failed: by zero")
    fails(tmp_path)
    task.look()
    assert (task.state, task.reason) == (STOPPED, "the chief left")


def test_an_evaluator_asks_for_the_end(tmp_path):
    task = follower(tmp_path)
    with Chief(str(tmp_path), SETTINGS) as chief:
        assert not chief.has_evaluator()
        task.join()
        task.announce_evaluator()
        assert chief.has_evaluator()
        assert chief.evaluators_stop_request() is None
        task.announce_evaluator("good enough")
        time.sleep(0.1)
        assert chief.evaluators_stop_request() == Stop("good enough", resumes=False)
    with Chief(str(tmp_path), SETTINGS) as later:  # what was wished for an earlier launch counts no more
        assert not later.has_evaluator()
        time.sleep(0.1)
        assert later.evaluators_stop_request() is None
