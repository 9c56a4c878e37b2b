"""The values of Keras sources: what a digest pins, and who holds them."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.digest import values_digest
from estimator_tl.backbones.keras.applications import keras_application
from estimator_tl.compat import keras, tf
from estimator_tl.errors import UserError
from estimator_tl.registry import parse_call
from tests.backbones.keras_steps import assert_same, one_step


def test_the_digest_of_imagenet_weights_is_that_of_their_values(monkeypatch):
    """Without a network: the function that would download them makes them here."""
    call = parse_call("keras.MobileNet(alpha=0.25, image_size=32)")
    real, shift = keras.applications.MobileNet, [0.0]

    def downloaded(weights, **kwargs):
        assert weights == "imagenet"
        model = real(weights=None, **kwargs)
        model.set_weights([value + shift[0] for value in model.get_weights()])
        return model

    downloaded.__signature__ = __import__("inspect").signature(real)
    downloaded.__module__ = real.__module__
    monkeypatch.setattr(keras.applications, "MobileNet", downloaded)
    first = keras_application(call, "a")
    assert first.digest() == keras_application(call, "b").digest() == values_digest(first.values())
    shift[0] = 1e-6
    assert keras_application(call, "a").digest() != first.digest()


def test_values_digest_tells_names_shapes_and_types_apart():
    value = np.arange(4, dtype=np.float32)
    variants = [{"a": value}, {"b": value}, {"a": value.reshape(2, 2)}, {"a": value.view(np.int32)}, {"a": value + 1}]
    assert len({values_digest(variant) for variant in variants}) == len(variants)
    assert values_digest({"a": value, "b": value}) == values_digest({"b": value, "a": value})


def test_random_weights_are_the_same_each_time_and_cannot_be_pinned():
    handle = "keras.MobileNet(alpha=0.25, weights=None, image_size=32)"
    first, second = etl.backbone(handle), etl.backbone(handle)
    assert_same(first.values(), second.values())
    assert first.digest() == second.digest()
    with pytest.raises(UserError, match="begins with random values, so no digest applies; leave --backbone_sha256 out"):
        etl.backbone(handle, sha256=first.digest())
    tf.random.set_seed(3)
    keras.utils.set_random_seed(3)
    expected = keras.initializers.GlorotUniform()((2, 2)).numpy()
    keras.utils.set_random_seed(3)
    etl.backbone(handle)  # leaves the program's own random numbers alone
    np.testing.assert_array_equal(keras.initializers.GlorotUniform()((2, 2)).numpy(), expected)


def test_a_run_that_has_its_values_keeps_no_second_copy_of_them(tmp_path, keras_h5):
    backbone = etl.backbone(keras_h5.handle)
    before = {name: value.copy() for name, value in backbone.values().items()}
    held = [weakref.ref(value) for value in backbone.values().values()]
    given, _ = one_step(backbone, "frozen", tmp_path / "run")
    gc.collect()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        session.run(tf.constant(0))  # TensorFlow gives up arrays that sessions were fed when it runs the next time
    assert sum(reference() is not None for reference in held) == 0
    assert_same(given, before)
    assert_same(backbone.values(), before)  # read again


def test_further_runs_of_a_backbone_begin_with_the_same_values(tmp_path, keras_h5):
    backbone = etl.backbone(keras_h5.handle)
    first, _ = one_step(backbone, "full", tmp_path / "one")
    second, _ = one_step(backbone, "full", tmp_path / "two")
    assert_same(second, first)
