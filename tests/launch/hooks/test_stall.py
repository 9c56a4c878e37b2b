"""Processes that hang."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from estimator_tl.compat import tf
from estimator_tl.errors import STALLED_EXIT_CODE
from estimator_tl.launch.hooks import StallWatchdog


def run(where, seconds):
    command = [sys.executable, "-m", "tests.programs.stalling", where, str(seconds)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("where", "awaited"), [("step", "step 3"), pytest.param("session", "a session", marks=pytest.mark.full)]
)
def test_what_hangs_ends(where, awaited):
    done = run(where, 2.0)
    assert done.returncode == STALLED_EXIT_CODE == 138, done.stderr
    stacks, line = done.stderr.rstrip("\n").rsplit("\n", 1)
    assert line.startswith(f"error: {awaited} has taken 0.03")
    assert "exits with code 138" in line
    assert "stalling.py" in stacks
    assert "in main" in stacks
    assert "ended" not in done.stdout


@pytest.mark.full
def test_slow_hooks_are_no_stall():
    done = run("nowhere", 2.0)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ended\n"


def test_a_session_that_failed_is_no_stall(tmp_path):
    """Hooks are not told of errors, and a program may go on after one, even with another session."""
    left = []
    with (tmp_path / "stderr").open("w") as stream, tf.Graph().as_default():
        step = tf.compat.v1.train.get_or_create_global_step()
        advance = tf.compat.v1.assign_add(step, 1)
        fails = tf.debugging.Assert(tf.less(step, 0), [step])
        watchdog = StallWatchdog(1.5 / 60, left.append, stream)
        session = tf.compat.v1.train.SingularMonitoredSession([watchdog])
        session.run(advance)
        with pytest.raises(tf.errors.InvalidArgumentError):
            session.run(fails)
        bad = tf.compat.v1.train.Scaffold(init_fn=lambda *_: 1 / 0)
        later = StallWatchdog(1.5 / 60, left.append, stream)
        with pytest.raises(ZeroDivisionError):
            tf.compat.v1.train.SingularMonitoredSession([later], bad)
        with tf.compat.v1.train.SingularMonitoredSession() as other:
            other.run_step_fn(lambda step_context: time.sleep(2.5))
    assert left == []
