"""Profiles of some steps."""

from __future__ import annotations

import pytest

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.launch.hooks import ProfilerHook, profile_window


def calls_of(monkeypatch, tmp_path, window, steps, before=0):
    """Returns at which global steps a profile was started and stopped: (what, finished steps)."""
    calls, made = [], [before]
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda logdir: calls.append(("start", made[0])))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: calls.append(("stop", made[0])))
    with tf.Graph().as_default():
        step = tf.compat.v1.train.get_or_create_global_step()
        advance = tf.compat.v1.assign_add(step, 1)
        scaffold = tf.compat.v1.train.Scaffold(init_fn=lambda _, session: step.load(before, session))
        hook = ProfilerHook(*window, str(tmp_path))
        with tf.compat.v1.train.SingularMonitoredSession([hook], scaffold) as session:
            for _ in range(steps):
                made[0] = int(session.run(advance))
    return calls


@pytest.mark.parametrize(
    ("window", "before", "expected"),
    [
        ((2, 3), 0, [("start", 1), ("stop", 2)]),  # the third step's result comes after the hook
        ((4, 9), 0, [("start", 3), ("stop", 5)]),  # training ends inside the window
        ((1, 1), 0, [("start", 0), ("stop", 0)]),
        ((2, 11), 10, [("start", 10), ("stop", 10)]),  # goes on inside it
        ((2, 5), 10, []),  # is past it
        ((8, 9), 0, []),  # never reaches it
    ],
)
def test_the_window_counts_global_steps(monkeypatch, tmp_path, window, before, expected):
    assert calls_of(monkeypatch, tmp_path, window, 5, before) == expected


@pytest.mark.parametrize("window", [(2, 3), (4, 100)])
def test_files_appear(tmp_path, window):
    with tf.Graph().as_default():
        step = tf.compat.v1.train.get_or_create_global_step()
        value = tf.reduce_sum(tf.matmul(tf.ones([64, 64]), tf.random.uniform([64, 64])))
        advance = tf.compat.v1.assign_add(step, 1)
        with tf.compat.v1.train.SingularMonitoredSession([ProfilerHook(*window, str(tmp_path))]) as session:
            for _ in range(5):
                session.run([advance, value])
    (profile,) = (tmp_path / "plugins" / "profile").glob("*/*.xplane.pb")
    assert b"MatMul" in profile.read_bytes()


def test_windows():
    assert profile_window("100,110") == (100, 110)
    assert profile_window(" 5 , 5 ") == (5, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100", "not two global steps; .* e.g. --profile=100,110"),
        ("1,2,3", "not two global steps"),
        ("a,b", "not two global steps"),
        ("-1,4", "not two global steps"),
        ("0,4", "the first step is 1; give e.g. --profile=1,4"),
        ("9,4", "ends before it begins; .*--profile=4,9"),
        ("0,0", "the first step is 1; give e.g. --profile=1,1"),
    ],
)
def test_no_windows(text, message):
    with pytest.raises(UserError, match=message):
        profile_window(text)
