"""The classification head: losses against their formulas, names of classes."""

from __future__ import annotations

import numpy as np
import pytest

from estimator_tl import heads
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]], np.float32)
LABELS = np.array([0, 2])


def spec_of(head, mode, logits=LOGITS, labels=LABELS, features=None):
    embedding = tf.zeros([2, 4])
    return head.estimator_spec(
        features=features or {"image": embedding},
        mode=mode,
        logits=tf.constant(logits),
        labels=None if labels is None else tf.constant(labels),
        train_op_fn=lambda loss: tf.no_op(),
        regularization_losses=[],
        embedding=embedding,
    )


def loss_of(head, **kwargs):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        spec = spec_of(head, estimator.ModeKeys.TRAIN, **kwargs)
        session.run(tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS))
        return float(session.run(spec.loss))


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_multi_class_loss(smoothing):
    targets = np.eye(3)[LABELS] * (1 - smoothing) + smoothing / 3
    expected = -(targets * log_softmax(LOGITS)).sum(-1).mean()
    head = heads.classifier(n_classes=3, label_smoothing=smoothing)
    np.testing.assert_allclose(loss_of(head), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_loss(smoothing):
    logits, labels = np.array([[1.5], [-0.5]], np.float32), np.array([1, 1])
    targets = labels * (1 - smoothing) + 0.5 * smoothing
    p = 1 / (1 + np.exp(-logits[:, 0]))
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()
    head = heads.classifier(n_classes=2, label_smoothing=smoothing)
    np.testing.assert_allclose(loss_of(head, logits=logits, labels=labels), expected, rtol=1e-5)


def test_example_weights_weigh_the_loss():
    features = {"image": tf.zeros([2, 4]), "weight": np.array([[1.0], [3.0]], np.float32)}
    each = -log_softmax(LOGITS)[np.arange(2), LABELS]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        columns = {"image": tf.zeros([2, 4]), "weight": tf.constant(features["weight"])}
        spec = spec_of(heads.classifier(n_classes=3), estimator.ModeKeys.TRAIN, features=columns)
        loss = float(session.run(spec.loss))
    np.testing.assert_allclose(loss, (each * [1, 3]).sum() / 2, rtol=1e-5)


def test_predictions_carry_label_strings_and_features():
    head = heads.classifier(labels=["ant", "bee", "cow"])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        spec = spec_of(head, estimator.ModeKeys.PREDICT, labels=None)
        got = session.run(spec.predictions)
        assert set(spec.export_outputs) == {"serving_default", "classify", "features"}
    assert got["classes"].tolist() == [[b"ant"], [b"bee"]]
    assert got["class_ids"].tolist() == [[0], [1]]
    assert got["all_classes"].tolist() == [[b"ant", b"bee", b"cow"]] * 2
    np.testing.assert_allclose(got["probabilities"], np.exp(log_softmax(LOGITS)), rtol=1e-5)
    assert got["features"].shape == (2, 4)


def test_hidden_layers_and_logits_have_stable_names():
    with tf.Graph().as_default():
        logits = heads.classifier([7, 5], n_classes=4).logits(tf.zeros([2, 3]), training=True)
        names = {v.op.name: tuple(v.shape) for v in tf.compat.v1.global_variables()}
    assert logits.shape == (2, 4)
    assert names == {
        "head/hidden_0/kernel": (3, 7),
        "head/hidden_0/bias": (7,),
        "head/hidden_1/kernel": (7, 5),
        "head/hidden_1/bias": (5,),
        "head/logits/kernel": (5, 4),
        "head/logits/bias": (4,),
    }


@pytest.mark.parametrize("training", [True, False])
def test_dropout_drops_in_training_only(training):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        logits = heads.classifier(dropout=0.5, n_classes=3).logits(tf.ones([1, 50]), training)
        step = tf.compat.v1.train.get_or_create_global_step()
        session.run(tf.compat.v1.global_variables_initializer())
        first, again = session.run(logits), session.run(logits)
        session.run(step.assign_add(1))
        second = session.run(logits)
    np.testing.assert_array_equal(first, again)  # what is dropped follows from the step alone
    assert np.array_equal(first, second) is not training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "rleu"}, "did you mean 'relu'"),
        ({"dropout": 1.0}, "dropout"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"hidden_units": [0]}, "hidden_units"),
        ({"n_classes": 1}, "at least 2"),
        ({"n_classes": 3, "labels": ["a", "b"]}, "2 labels for n_classes=3"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(UserError, match=message):
        heads.classifier(**arguments)


def test_needs_flat_features():
    with pytest.raises(UserError, match=r"\[batch, depth\].*--pooling"):
        heads.classifier(n_classes=3).check(4)
