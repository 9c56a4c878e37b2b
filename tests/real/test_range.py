"""The range that the real MobileNets take, and what is inside of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import estimator_tl as etl
from estimator_tl.backbones.input.range import BYTES, SIGNED, UNIT, Finding
from estimator_tl.backbones.keras.weights import load_weights
from estimator_tl.compat import keras, tf
from estimator_tl.structure import CallMode
from estimator_tl.tf_internals.eager import run_eagerly_in_thread

SIZE = 224


@pytest.mark.parametrize("name", ["mobilenet_tf2", "mobilenet_tf1"])
def test_models_of_hub_take_images_from_0_to_1(name, request):
    backbone = etl.backbone(str(request.getfixturevalue(name)))
    assert backbone.image_spec.range == UNIT
    assert backbone.finding == Finding("x * 2 - 1 (mul, sub)", UNIT)
    np.testing.assert_allclose(backbone.image_spec.preprocess(tf.constant([0.0, 127.5, 255.0])), [0, 0.5, 1], atol=1e-6)


def plain(weights):
    return f"keras.MobileNet(alpha=0.25, weights={str(weights)!r})"


def test_the_application_takes_images_from_minus_1_to_1(mobilenet_weights):
    backbone = etl.backbone(plain(mobilenet_weights))
    assert backbone.image_spec.range == SIGNED
    assert backbone.finding == Finding("", None)
    np.testing.assert_allclose(backbone.image_spec.preprocess(tf.constant([0.0, 127.5, 255.0])), [-1, 0, 1], atol=1e-6)


def save_with_rescaling(weights, path):
    """Saves the real network as Keras's tutorials write it: rescaling in front, the network in inference mode."""

    def save():
        base = keras.applications.MobileNet((SIZE, SIZE, 3), 0.25, include_top=False, weights=None)
        load_weights(base, str(weights))
        inputs = keras.Input((SIZE, SIZE, 3))
        outputs = base(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs), training=False)
        keras.Model(inputs, outputs).save(str(path))

    run_eagerly_in_thread(save)
    return str(path)


def features(backbone, pixels):
    """The features of images with values in [0, 255], which go in as the backbone's range says."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        built = backbone.build(backbone.image_spec.preprocess(tf.constant(pixels)), CallMode())
        session.run(tf.compat.v1.global_variables_initializer())
        for name, value in built.initial_values().items():
            built.variables[name].load(value, session)
        return session.run(built.features)


def test_a_file_that_rescales_gives_the_features_of_the_plain_network(mobilenet_weights, real_photos, tmp_path):
    """Only the last bits differ; rescaling twice, as the default once did, changes what the features are."""
    photos = [np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE))) for path in real_photos[:3]]
    pixels = np.stack(photos).astype(np.float32)
    expected = features(etl.backbone(plain(mobilenet_weights)), pixels)
    path = save_with_rescaling(mobilenet_weights, tmp_path / "m.h5")
    backbone = etl.backbone(path)
    assert backbone.image_spec.range == BYTES
    assert backbone.finding == Finding("x / 127.5 - 1 (layer rescaling)", BYTES)
    np.testing.assert_allclose(features(backbone, pixels), expected, atol=1e-4)
    twice = features(etl.backbone(path, input_range=UNIT), pixels)
    assert np.abs(twice - expected).max() > 0.5
