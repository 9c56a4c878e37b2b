"""Which variables move: measured on checkpoints, bit for bit, for every kind of source."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import tf
from tests.checkpoints import checkpoint_values
from tests.contract.training import HEAD, make_estimator, train_and_compare
from tests.tiny import random_batches

# Those that share their way into the graph with one of the first run in `make test-full`.
SOURCES = [
    "hub_module",
    "keras_h5",
    "v1_checkpoint",
    "tf1_references",
    *(
        pytest.param(name, marks=pytest.mark.full)
        for name in (
            "keras_zip",
            "keras_folder",
            "application",
            "keras_checkpoint",
            "tf1_module",
            "mobilenet_v2",
            "densenet",
            "efficientnet",
            "resnet",
            "vgg",
        )
    ),
]


@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_frozen_moves_the_head_only(source, tmp_path):
    assert train_and_compare(source, "frozen", tmp_path) == (set(), HEAD)


@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_partial_moves_exactly_its_variables(source, tmp_path):
    spec, expected = next(iter(source.partial.items()))
    assert 0 < len(expected) < len(source.trainable)
    assert train_and_compare(source, spec, tmp_path) == (expected, HEAD)


@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_full_moves_all_trainable_variables_and_no_statistics(source, tmp_path):
    assert train_and_compare(source, "full", tmp_path) == (source.trainable, HEAD)


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
@pytest.mark.parametrize("spec", ["from_layer('bn2')", "scopes('^conv1')"])
def test_other_policies_move_exactly_their_variables(source, spec, tmp_path):
    assert train_and_compare(source, spec, tmp_path) == (source.partial[spec], HEAD)


@pytest.mark.parametrize(
    "source",
    ["hub_module", "keras_h5", "v1_checkpoint", "keras_checkpoint", "tf1_module", "tf1_references"],
    indirect=True,
)
def test_full_with_training_batch_norm_moves_statistics_too(source, tmp_path):
    moved, _ = train_and_compare(source, "full", tmp_path, batch_norm="train")
    assert moved == set(source.values)


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_partial_with_training_batch_norm_moves_statistics_of_unfrozen_layers_only(source, tmp_path):
    moved, _ = train_and_compare(source, "last_layers(3)", tmp_path, batch_norm="train")
    assert moved == source.partial["last_layers(3)"] | {"bn2/moving_mean", "bn2/moving_variance"}


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_training_statistics_follow_the_batch(source, tmp_path):
    """The moving mean after one step is 0.99 of the old one plus 0.01 of the batch's mean."""
    make_estimator(source, "full", tmp_path, batch_norm="train", backbone_dropout=False).train(
        random_batches(source.size), steps=1
    )
    last = checkpoint_values(tmp_path / "model.ckpt-1")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        features, _ = tf.compat.v1.data.make_one_shot_iterator(random_batches(source.size)()).get_next()
        images = session.run(features["image"])
    activations = tf.nn.conv2d(images, source.values["conv1/kernel"], 1, "VALID").numpy()
    expected = 0.99 * source.values["bn1/moving_mean"] + 0.01 * activations.mean((0, 1, 2))
    np.testing.assert_allclose(last["bn1/moving_mean"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("source", ["hub_module", "keras_h5", "v1_checkpoint", "tf1_module"], indirect=True)
def test_restart_continues_from_the_checkpoint_not_from_the_source(source, tmp_path):
    model = make_estimator(source, "full", tmp_path)
    model.train(random_batches(source.size), steps=2)
    saved = checkpoint_values(tmp_path / "model.ckpt-2")
    seen = {}

    class Look(tf.compat.v1.train.SessionRunHook):
        def after_create_session(self, session, coord):
            for variable in tf.compat.v1.global_variables():
                if variable.op.name in source.values:
                    seen[variable.op.name] = session.run(variable)

    model.train(random_batches(source.size), steps=1, hooks=[Look()])
    assert set(seen) == set(source.values)
    for name, value in seen.items():
        np.testing.assert_array_equal(value, saved[name])


@pytest.mark.parametrize("source", ["hub_module", "keras_h5"], indirect=True)
def test_features_equal_those_of_the_source_itself(source, tmp_path):
    """What the frozen graph computes is what the source computes outside of it."""
    model = make_estimator(source, "frozen", tmp_path)
    model.train(random_batches(source.size), steps=1)
    images = np.random.RandomState(5).rand(4, source.size, source.size, 3).astype(np.float32)
    predicted = list(model.predict(lambda: tf.data.Dataset.from_tensors({"image": images})))
    if source.handle.endswith(".h5"):
        expected = etl.keras.models.load_model(source.handle)(images, training=False).numpy().mean((1, 2))
    else:
        expected = tf.saved_model.load(source.handle)(images, training=False).numpy()
    np.testing.assert_allclose([p["features"] for p in predicted], expected, rtol=1e-5, atol=1e-6)
