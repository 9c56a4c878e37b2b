"""Norms against numbers computed by hand: a loss that is quadratic in its variables, and plain SGD."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.launch.hooks import NormsHook
from estimator_tl.optimization.training import train_op
from estimator_tl.spans import Interval
from estimator_tl.tuning import collections
from tests import linear, tiny
from tests.runs import written

RATE = 0.1
LOW = np.array([3.0, 4.0], np.float32)
HIGH = np.array([1.0, 2.0, 2.0], np.float32)


def train(folder, steps, every=1, gates=None, only=None, before=0):
    """Trains low/w, in two parts, and top/w on half their squares, so that each gradient is the variable itself."""
    with tf.Graph().as_default():
        step = tf.compat.v1.train.get_or_create_global_step()
        low = [tf.compat.v1.get_variable(f"low/{name}", initializer=v) for name, v in (("w", LOW[:1]), ("b", LOW[1:]))]
        top = tf.compat.v1.get_variable("top/w", initializer=HIGH)
        variables = [*low, top]
        tf.compat.v1.get_default_graph().get_collection_ref(collections.TRAINABLE)[:] = variables
        loss = tf.add_n([tf.nn.l2_loss(v) for v in variables])
        moved = None if only is None else [v for v in variables if v.op.name in only]
        op = train_op(etl.optimizers.sgd(RATE), loss, variables, [], None, steps=gates, only=moved)
        hook = NormsHook(every, str(folder), {"low/w": "low", "low/b": "low"})
        scaffold = tf.compat.v1.train.Scaffold(init_fn=lambda _, session: step.load(before, session))
        with tf.compat.v1.train.SingularMonitoredSession([hook], scaffold) as session:
            for _ in range(steps):
                session.run(op)
    return written(folder)


def test_plain_descent(tmp_path):
    found = train(tmp_path, 3)
    for step in (1, 2, 3):
        shrunk = (1 - RATE) ** (step - 1)
        assert found.pop(("norms/gradient/low", step)) == pytest.approx(5 * shrunk, rel=1e-5)
        assert found.pop(("norms/gradient/head", step)) == pytest.approx(3 * shrunk, rel=1e-5)
        assert found.pop(("norms/update_ratio/low", step)) == pytest.approx(RATE, rel=1e-5)
        assert found.pop(("norms/update_ratio/head", step)) == pytest.approx(RATE, rel=1e-5)
    assert not found


def test_due_steps_are_multiples_of_the_global_step(tmp_path):
    assert {step for _, step in train(tmp_path, 7, every=3, before=4)} == {6, 9}


@pytest.mark.parametrize("only", [None, {"top/w"}])
def test_variables_at_rest(tmp_path, only):
    """Gated and ungated graphs say the same."""
    gates = {"low/w": [Interval(2)], "low/b": [Interval(2)]}
    found = train(tmp_path, 2, gates=gates, only=only)
    for step in (1, 2):
        assert found["norms/gradient/low", step] == found["norms/update_ratio/low", step] == 0
        assert found["norms/gradient/head", step] == pytest.approx(3 * (1 - RATE) ** (step - 1), rel=1e-5)


def test_a_gate_that_opens(tmp_path):
    found = train(tmp_path, 2, gates={"low/w": [Interval(1)], "low/b": [Interval(1)]})
    assert found["norms/gradient/low", 1] == 0
    assert found["norms/gradient/low", 2] == pytest.approx(5, rel=1e-5)
    assert found["norms/update_ratio/low", 2] == pytest.approx(RATE, rel=1e-5)


def test_sparse_gradients_and_a_group_of_zeros(tmp_path):
    """Rows that a batch names twice count as their sum; to zeros there is no ratio."""
    with tf.Graph().as_default():
        tf.compat.v1.train.get_or_create_global_step()
        table = tf.compat.v1.get_variable("table", [3, 1], initializer=tf.compat.v1.zeros_initializer())
        loss = tf.reduce_sum(tf.nn.embedding_lookup(table, [0, 0, 2]))
        op = train_op(etl.optimizers.sgd(RATE), loss, [table], [], None)
        with tf.compat.v1.train.SingularMonitoredSession([NormsHook(1, str(tmp_path), {})]) as session:
            session.run(op)
    assert written(tmp_path) == {("norms/gradient/head", 1): pytest.approx(5**0.5, rel=1e-6)}


def _linear_model(features, labels, mode):
    kernel = tf.compat.v1.get_variable("kernel", [3, 1], initializer=tf.compat.v1.ones_initializer())
    loss = tf.reduce_mean(tf.square(tf.matmul(features["x"], kernel) - labels))
    op = train_op(etl.optimizers.sgd(RATE), loss, [kernel], [], None)
    return estimator.EstimatorSpec(mode, loss=loss, train_op=op)


def test_replicas_count_together(tmp_path):
    """Two replicas with the halves of the data: the gradient is that of the whole."""
    config = estimator.RunConfig(
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )
    model = estimator.Estimator(_linear_model, str(tmp_path), config)
    model.train(lambda: linear.input_fn(8), steps=2, hooks=[NormsHook(1, str(tmp_path), {"kernel": "linear"})])
    found, kernel = written(tmp_path), np.ones([3, 1])
    for step in (1, 2):
        gradient = 2 / 16 * linear.X.T @ (linear.X @ kernel - linear.Y)
        assert found["norms/gradient/linear", step] == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
        ratio = RATE * np.linalg.norm(gradient) / np.linalg.norm(kernel)
        assert found["norms/update_ratio/linear", step] == pytest.approx(ratio, rel=1e-5)
        kernel -= RATE * gradient


@pytest.mark.full
def test_groups_of_a_source(hub_module, tmp_path):
    backbone = etl.backbone(hub_module.handle)
    tuning = etl.tuning.registry.make("last_groups(2)")
    model_fn = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3), tuning, etl.optimizers.sgd(RATE))
    groups = {variable.name: variable.group for variable in backbone.structure.variables}
    model = estimator.Estimator(model_fn, str(tmp_path))
    model.train(tiny.random_batches(tiny.SIZE), steps=2, hooks=[NormsHook(2, str(tmp_path), groups)])
    found = written(tmp_path)
    kinds = ("gradient", "update_ratio")
    assert set(found) == {(f"norms/{k}/{g}", 2) for k in kinds for g in ("top/conv2", "top/conv2_bn", "head")}
    assert all(value > 0 for value in found.values())
