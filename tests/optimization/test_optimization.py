"""Schedules and optimizers against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.optimization import optimizers, schedules
from estimator_tl.optimization.training import train_op


def rates(spec, steps, total=None):
    schedule = schedules.as_schedule(spec)
    return [float(schedule(tf.constant(step, tf.int64), total)) for step in steps]


def test_constant():
    assert rates("0.5", [0, 7]) == [0.5, 0.5]
    assert rates("constant(0.5, warmup_steps=4)", [0, 1, 3, 4, 9]) == [0.125, 0.25, 0.5, 0.5, 0.5]


def test_exponential():
    np.testing.assert_allclose(
        rates("exponential(1e-3, 1000, 0.9)", [0, 500, 1000, 3000]),
        [1e-3, 1e-3 * 0.9**0.5, 0.9e-3, 1e-3 * 0.9**3],
        rtol=1e-6,
    )
    np.testing.assert_allclose(rates("exponential(1.0, 10, 0.5, staircase=True)", [9, 10, 19]), [1, 0.5, 0.5])


def test_cosine_ends_where_the_run_ends():
    expected = [1.0, 0.5 * (1 + math.cos(math.pi * 0.25)), 0.5, 0.0, 0.0]
    np.testing.assert_allclose(rates("cosine(1.0)", [0, 25, 50, 100, 120], total=100), expected, atol=1e-6)


def test_cosine_with_warmup_and_floor():
    got = rates("cosine(1.0, steps=110, warmup_steps=10, final=0.1)", [0, 9, 10, 60, 110], total=999)
    np.testing.assert_allclose(got, [0.1, 1.0, 1.0, 0.55, 0.1], atol=1e-6)


@pytest.mark.parametrize(
    "spec", ["0", "-1", "cosine(0.1, warmup_steps=-3)", "nan", "exponential(0.1, 0, 0.9)", "cosin(1)"]
)
def test_refuses_rates_that_cannot_work(spec):
    with pytest.raises(UserError):
        schedules.as_schedule(spec)


def test_cosine_needs_an_end():
    with pytest.raises(UserError, match="where it ends"):
        rates("cosine(1.0)", [0])


def step_with(spec, rate=0.1, steps=3):
    """Runs an optimizer on the loss sum(w^2) from w=1 and returns w after each step."""
    with tf.Graph().as_default():
        w = tf.compat.v1.get_variable("w", initializer=tf.ones([]), use_resource=True)
        optimizer = optimizers.registry.make(spec).with_learning_rate(rate)
        op = train_op(optimizer, w * w, [w], [], None)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            values = []
            for _ in range(steps):
                session.run(op)
                values.append(float(session.run(w)))
            assert session.run(tf.compat.v1.train.get_global_step()) == steps
    return values


def test_sgd():
    np.testing.assert_allclose(step_with("sgd"), [0.8, 0.64, 0.512], rtol=1e-6)


def test_momentum_and_nesterov():
    w, v, plain = 1.0, 0.0, []
    for _ in range(3):
        v = 0.9 * v + 2 * w
        w -= 0.1 * v
        plain.append(w)
    np.testing.assert_allclose(step_with("sgd(momentum=0.9)"), plain, rtol=1e-5)
    w, v, nesterov = 1.0, 0.0, []
    for _ in range(3):
        gradient = 2 * w
        v = 0.9 * v + gradient
        w -= 0.1 * (gradient + 0.9 * v)
        nesterov.append(w)
    np.testing.assert_allclose(step_with("sgd(momentum=0.9, nesterov=True)"), nesterov, rtol=1e-5)


def test_adam():
    w, m, v, expected = 1.0, 0.0, 0.0, []
    for t in (1, 2, 3):
        g = 2 * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= 0.1 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (math.sqrt(v) + 1e-8)
        expected.append(w)
    np.testing.assert_allclose(step_with("adam"), expected, rtol=1e-5)


def test_rmsprop():
    w, s, expected = 1.0, 1.0, []
    for _ in range(3):
        g = 2 * w
        s = 0.9 * s + 0.1 * g * g
        w -= 0.1 * g / math.sqrt(s + 1e-10)
        expected.append(w)
    np.testing.assert_allclose(step_with("rmsprop"), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("adm", "did you mean 'adam'"),
        ("sgd(nesterov=True)", "momentum above 0"),
        ("sgd(momentum=1.5)", r"in \[0, 1\)"),
        ("adam(beta1='x')", "beta1"),
        ("adam(lr=1e-3)", "no argument 'lr'"),
    ],
)
def test_refuses(spec, message):
    with pytest.raises(UserError, match=message):
        optimizers.registry.make(spec)


def test_a_variable_that_the_loss_does_not_reach_is_an_error():
    with tf.Graph().as_default():
        used = tf.compat.v1.get_variable("used", initializer=1.0)
        lost = tf.compat.v1.get_variable("lost", initializer=1.0)
        with pytest.raises(UserError, match="does not depend on.*lost"):
            train_op(optimizers.sgd(), used * 2, [used, lost], [], None)
