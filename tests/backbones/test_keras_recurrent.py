"""Recurrent, attention and wrapped layers of Keras models: they train, go on, evaluate and predict."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, keras, tf
from tests import tiny
from tests.backbones.building import IMAGES, build
from tests.backbones.keras_steps import in_full
from tests.backbones.keras_training import training_features
from tests.checkpoints import checkpoint_values

LAYERS = keras.layers


def rows(layer):
    """A model that reads an image row by row."""
    return keras.Sequential([keras.Input((8, 8, 3)), LAYERS.Reshape((8, 24)), layer])


def attention():
    inputs = keras.Input((8, 8, 3))
    net = LAYERS.Reshape((8, 24))(inputs)
    net = LAYERS.MultiHeadAttention(2, 4, dropout=0.5, name="attention")(net, net)
    return keras.Model(inputs, LAYERS.GlobalAveragePooling1D()(net))


MODELS = {
    "lstm": lambda: rows(LAYERS.LSTM(5, dropout=0.5)),
    "gru": lambda: rows(LAYERS.GRU(5, recurrent_dropout=0.5)),
    "bidirectional": lambda: rows(LAYERS.Bidirectional(LAYERS.LSTM(5, dropout=0.5))),
    "simple": lambda: rows(LAYERS.SimpleRNN(5, dropout=0.5)),
    "cells": lambda: rows(LAYERS.RNN([LAYERS.LSTMCell(5, dropout=0.5), LAYERS.GRUCell(4)])),
    "images": lambda: keras.Sequential(
        [keras.Input((8, 8, 3)), LAYERS.Reshape((2, 4, 8, 3)), LAYERS.ConvLSTM2D(4, 2, dropout=0.5)]
    ),
    "wrapped": lambda: keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            LAYERS.TimeDistributed(LAYERS.Dense(4)),
            LAYERS.TimeDistributed(LAYERS.BatchNormalization()),
            LAYERS.Reshape((8, 32)),
            LAYERS.TimeDistributed(LAYERS.Dropout(0.5)),
            LAYERS.GRU(3),
        ]
    ),
    "attention": attention,
}
SLOW = ["gru", "bidirectional", "simple", "cells", "images", "wrapped"]


def saved(kind, path):
    model = MODELS[kind]()
    tiny.randomize(model, 12)
    model.save(str(path), **({} if path.suffix else {"save_format": "tf"}))
    features = model(IMAGES, training=False).numpy()
    return str(path), features.mean((1, 2)) if features.ndim == 4 else features


@pytest.mark.parametrize("kind", ["lstm", "attention", *in_full(*SLOW)])
@pytest.mark.parametrize("suffix", [".h5", *in_full(".keras", "")])
def test_a_life(kind, suffix, tmp_path):
    path, expected = saved(kind, tmp_path / f"model{suffix}")
    backbone = etl.backbone(path)
    np.testing.assert_allclose(build(backbone, IMAGES)[0], expected, rtol=1e-4, atol=1e-5)
    head, optimizer = etl.heads.classifier(n_classes=3), etl.optimizers.sgd(0.1)
    model_fn = etl.make_model_fn(backbone, head, etl.tuning.full(), optimizer, show_plan=lambda text: None)
    model = estimator.Estimator(model_fn, str(tmp_path / "run"), estimator.RunConfig(tf_random_seed=1), params={})
    model.train(tiny.random_batches(8), steps=1)
    first = checkpoint_values(tmp_path / "run" / "model.ckpt-0")
    model.train(tiny.random_batches(8), steps=1)
    last = checkpoint_values(tmp_path / "run" / "model.ckpt-2")
    moved = {name for name in first if not np.array_equal(first[name], last[name])}
    trainable = {v.name for v in backbone.structure.variables if v.trainable}
    # A bias of keys moves no attention.
    assert trainable - moved <= {"attention/key/bias"}
    assert {v.name for v in backbone.structure.variables} - trainable == set(first) - moved - {"attention/key/bias"}
    losses = [model.evaluate(tiny.random_batches(8), steps=2)["loss"] for _ in range(2)]
    assert losses[0] == losses[1]
    assert len(list(model.predict(lambda: tf.data.Dataset.from_tensors({"image": IMAGES})))) == 2


@pytest.mark.parametrize("kind", ["lstm", "attention", *in_full(*SLOW)])
def test_dropout_follows_the_plan(kind, tmp_path):
    path, expected = saved(kind, tmp_path / "model.h5")
    backbone = etl.backbone(path)
    assert backbone.is_random
    first, second = training_features(backbone, dropout=True)
    assert not np.array_equal(first, second)
    first, second = training_features(backbone)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-5)
