"""What a user sees while training."""

from __future__ import annotations

import io

import pytest

from estimator_tl.compat import tf
from estimator_tl.launch.hooks.progress import ProgressHook, clock, metrics_text, show_evaluation


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run_steps(stream, clock_seconds, steps=6, total=10, **options):
    """Runs a session whose every step takes a second of a false clock."""
    with tf.Graph().as_default():
        step = tf.compat.v1.train.get_or_create_global_step()
        tf.compat.v1.losses.add_loss(tf.constant(0.25))
        advance = tf.compat.v1.assign_add(step, 1)
        hook = ProgressHook(total, batch_size=8, stream=stream, **options)
        with tf.compat.v1.train.SingularMonitoredSession([hook]) as session:
            for _ in range(steps):
                clock_seconds[0] += 1.0
                session.run(advance)
    return stream.getvalue()


@pytest.fixture
def seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("estimator_tl.launch.hooks.progress.time.monotonic", lambda: now[0])
    return now


def test_bar_on_a_terminal(seconds):
    printed = run_steps(Terminal(), seconds)
    assert "8.0 examples/s  loss 0.2500" in printed
    assert "\r\x1b[K[" in printed
    assert "left" in printed
    assert printed.endswith("step 6/10, 8.0 examples/s on average\n")


def test_plain_lines_elsewhere(seconds):
    printed = run_steps(io.StringIO(), seconds, steps=25, total=30)
    assert "\r" not in printed
    lines = printed.splitlines()
    assert len(lines) == 3  # every ten seconds, and the last
    assert lines[0].startswith("step 11/30  8.0 examples/s  loss 0.2500  0:19 left")


def test_speed_of_a_replica(seconds):
    printed = run_steps(Terminal(), seconds, replicas=2)
    assert "  8.0 examples/s (4.0 a replica)  loss 0.2500" in printed
    assert printed.endswith("step 6/10, 8.0 examples/s (4.0 a replica) on average\n")


def test_evaluation_takes_the_place_of_the_bar():
    for stream, start in ((Terminal(), "\r\x1b[K"), (io.StringIO(), "")):
        show_evaluation({"accuracy": 0.5, "global_step": 7}, stream)
        assert stream.getvalue() == start + "evaluation at step 7: accuracy 0.5000\n"


def test_clock():
    assert [clock(s) for s in (0, 59.6, 61, 3725)] == ["0:00", "1:00", "1:01", "1:02:05"]


def test_metrics_text():
    assert metrics_text({"loss": 0.5, "global_step": 3, "accuracy": 1.0}) == "accuracy 1.0000, loss 0.5000"
