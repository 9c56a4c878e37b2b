"""Trainings whose numbers stop being finite."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from estimator_tl.launch.hooks import NanGuardHook
from estimator_tl.optimization.training import train_op

BATCH = 4
GOOD = np.ones([5 * BATCH, 3], np.float32)


def data(changed=None):
    """Five batches of ones for ever, with some numbers changed: {(batch, row, column): value}."""
    x = GOOD.copy()
    for (batch, row, column), value in (changed or {}).items():
        x[batch * BATCH + row, column] = value
    return x


def network(body, x, rate=0.1, start=0.5):
    """Returns the train op of two layers: a kernel, and what `body` makes of its output."""
    with tf.compat.v1.variable_scope("low"):
        kernel = tf.compat.v1.get_variable("kernel", initializer=np.full([3, 2], start, np.float32))
        hidden = tf.matmul(x, kernel)
    with tf.compat.v1.variable_scope("top"):
        scale = tf.compat.v1.get_variable("scale", initializer=np.float32(1))
        loss = tf.reduce_mean(scale * body(hidden))
    tf.compat.v1.losses.add_loss(loss)
    return train_op(etl.optimizers.sgd(rate), loss, [kernel, scale], [], None)


def train(folder, body, x, steps=5, every=1, **options):
    """Trains for some steps, saving; returns the last checkpoint's values."""
    with tf.Graph().as_default():
        tf.compat.v1.train.get_or_create_global_step()
        batches = tf.data.Dataset.from_tensor_slices({"x": x}).repeat().batch(BATCH)
        batch = tf.compat.v1.data.make_one_shot_iterator(batches).get_next()["x"]
        op = network(body, batch, **options)
        guard = NanGuardHook()
        scaffold = tf.compat.v1.train.Scaffold()
        saver = tf.compat.v1.train.CheckpointSaverHook(
            str(folder), save_steps=every, scaffold=scaffold, listeners=[guard.listener]
        )
        with tf.compat.v1.train.SingularMonitoredSession(
            [guard, saver], scaffold, checkpoint_dir=str(folder)
        ) as session:
            for _ in range(steps):
                session.run(op)
    return saved(folder)


def saved(folder):
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder)))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def check_good(folder, step):
    """The last checkpoint is that of a step before things went wrong, and training goes on from it."""
    values = saved(folder)
    assert values["global_step"] == step
    assert all(np.isfinite(value).all() for value in values.values())
    assert train(folder, tf.abs, data(), steps=2, rate=1e-3)["global_step"] == step + 2


def test_training_that_is_well(tmp_path):
    assert train(tmp_path, tf.square, data(), steps=3, rate=1e-3)["global_step"] == 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data(tmp_path, value):
    message = (
        r"step 3, the loss is .*: the data itself is NaN or infinite, in 1 of the 4 examples .*from 0: 1; tensor Itera"
    )
    with pytest.raises(UserError, match=message):
        train(tmp_path, tf.square, data({(2, 1, 0): value}), rate=1e-3)
    check_good(tmp_path, 2)


def test_an_operation(tmp_path):
    """The update has poisoned both variables by the time; the layer is found with the last checkpoint's values."""
    x = data({(2, 1, column): 0.0 for column in range(3)})
    with pytest.raises(
        UserError, match=r"step 3, the loss is -inf: top/Log:0 \(Log\) in layer top is NaN or infinite, although"
    ):
        train(tmp_path, tf.math.log, x, rate=1e-3)
    check_good(tmp_path, 2)


def test_an_operation_without_a_checkpoint(tmp_path):
    """Where the variables are still good, no checkpoint is needed."""
    with tf.Graph().as_default():
        step = tf.compat.v1.train.get_or_create_global_step()
        with tf.name_scope("head"):
            masked = tf.where([True, False], tf.ones([2]), tf.fill([2], -np.inf))  # infinity by intent, and not taken
            loss = tf.math.log(1.0 - tf.cast(step, tf.float32)) + masked[0]
        advance = tf.compat.v1.assign_add(step, 1)
        session = tf.compat.v1.train.SingularMonitoredSession([NanGuardHook(loss)])
        session.run(loss)  # no step yet
        session.run(advance)
        with pytest.raises(
            UserError, match=r"step 1, .*: head/Log:0 \(Log\) in layer head is NaN or infinite, although"
        ):
            session.run(loss)


def test_a_gradient_with_a_finite_loss(tmp_path):
    """Variables are gone and the loss is not: the step may not be saved."""
    x = data({(2, 1, column): 0.0 for column in range(3)})
    message = (
        r"step 3, variables are NaN or infinite: the loss is finite, but the gradients of 1 variables are not "
        r"\(first low/kernel\), starting at gradients/top/Sqrt_grad/SqrtGrad:0 \(SqrtGrad\) in layer top;"
    )
    with pytest.raises(UserError, match=message):
        train(tmp_path, tf.sqrt, x, rate=1e-3)
    check_good(tmp_path, 2)


def test_a_gradient_that_the_next_step_shows(tmp_path):
    x = data({(2, 1, column): 0.0 for column in range(3)})
    with pytest.raises(UserError, match=r"step 4, the loss is nan: the loss is finite, but .*top/Sqrt_grad"):
        train(tmp_path, tf.sqrt, x, rate=1e-3, every=100)
    check_good(tmp_path, 0)


def test_a_rate_that_is_too_high(tmp_path):
    """Nothing but the update itself overflows."""
    message = (
        r"step 1, variables are NaN or infinite: 2 variables are NaN or infinite, first low/kernel in layer low, "
        r"after an update .*; lower --learning_rate.*model.ckpt-0 is good"
    )
    with pytest.raises(UserError, match=message):
        train(tmp_path, tf.abs, data() * 1e30, rate=1e10)
    check_good(tmp_path, 0)


def test_a_source_that_is_not_finite(tmp_path):
    with pytest.raises(
        UserError, match=r"step 0, .*: 1 variables are NaN or infinite, first low/kernel in layer low, before the"
    ):
        train(tmp_path, tf.square, data(), start=np.nan)
    assert tf.train.latest_checkpoint(str(tmp_path)) is None


def test_no_loss():
    with tf.Graph().as_default(), pytest.raises(UserError, match="give it loss="):
        tf.compat.v1.train.SingularMonitoredSession([NanGuardHook()])


def test_a_replica(tmp_path):
    """The loss that is fetched is that of both; the second has the bad picture."""

    def model_fn(features, labels, mode):
        op = network(tf.square, features["x"], 1e-3)
        return estimator.EstimatorSpec(mode, loss=tf.compat.v1.losses.get_losses()[-1], train_op=op)

    config = estimator.RunConfig(
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )
    x = data({(3, 2, 0): np.nan})  # the second batch of the second step
    hooks = [NanGuardHook(), tf.compat.v1.train.CheckpointSaverHook(str(tmp_path), save_steps=1)]
    with pytest.raises(UserError, match=r"step 2, .*: the data itself .*from 0: 2; tensor IteratorGetNext_1"):
        estimator.Estimator(model_fn, str(tmp_path), config).train(
            lambda: tf.data.Dataset.from_tensor_slices({"x": x}).repeat().batch(BATCH), steps=4, hooks=hooks
        )
    assert tf.train.latest_checkpoint(str(tmp_path)).endswith("-1")
