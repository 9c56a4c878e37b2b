"""Keras models inside of models, and subclassed ones: which of their variables are there, and move."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import keras
from estimator_tl.errors import UserError
from tests import tiny
from tests.backbones.building import IMAGES, build
from tests.backbones.keras_steps import in_full, one_step
from tests.backbones.subclassed import LAYERS, Subclassed


def inner_model(name):
    inputs = keras.Input((8, 8, 3))
    net = LAYERS.BatchNormalization(name="bn")(LAYERS.Conv2D(3, 1, name="conv")(inputs))
    return keras.Model(inputs, LAYERS.ReLU(name="relu")(net), name=name)


def nested_model():
    """Two nested models, Functional and Sequential, whose layers have the same names, and a layer after each."""
    inputs = keras.Input((8, 8, 3))
    sequential = keras.Sequential(
        [LAYERS.Conv2D(3, 1, name="conv", input_shape=(8, 8, 3)), LAYERS.BatchNormalization(name="bn")], name="second"
    )
    net = LAYERS.Conv2D(3, 1, name="middle")(inner_model("first")(inputs))
    net = LAYERS.GlobalAveragePooling2D(name="pool")(sequential(net))
    model = keras.Model(inputs, LAYERS.Dense(4, name="top")(net), name="outer")
    tiny.randomize(model, 7)
    return model


@pytest.fixture(scope="module", params=["nested.h5", *in_full("nested.keras", "nested")])
def nested(request, tmp_path_factory):
    model = nested_model()
    path = str(tmp_path_factory.mktemp("nested") / request.param)
    model.save(path, **({} if "." in request.param else {"save_format": "tf"}))
    return path, model


# As a graph names what comes second under the same name, and so does a checkpoint.
SECOND = {"conv_1/kernel", "conv_1/bias", "bn_1/gamma", "bn_1/beta"}


@pytest.mark.parametrize(
    ("tuning", "batch_norm", "expected"),
    [
        ("last_layers(1)", "inference", {"top/kernel", "top/bias"}),
        ("last_layers(3)", "inference", {"top/kernel", "top/bias", *SECOND}),
        ("scopes('^bn_1/')", "train", {"bn_1/gamma", "bn_1/beta", "bn_1/moving_mean", "bn_1/moving_variance"}),
        ("from_layer('middle')", "inference", {"middle/kernel", "middle/bias", "top/kernel", "top/bias", *SECOND}),
    ],
)
def test_policies_inside_nested_models(nested, tuning, batch_norm, expected, tmp_path):
    path, model = nested
    backbone = etl.backbone(path)
    values, moved = one_step(backbone, tuning, tmp_path, batch_norm)
    assert moved == expected
    wanted = [weight.numpy() for layer in model.layers for weight in layer.weights]
    assert len(values) == len(wanted)
    for (name, value), want in zip(values.items(), wanted):
        np.testing.assert_array_equal(value, want, err_msg=name)


def test_cut_inside_nested_models(nested, tmp_path):
    path, _ = nested
    model = keras.models.load_model(path)
    first, second = model.get_layer("first"), model.get_layer("second")
    middle = model.get_layer("middle")
    after = middle(first(IMAGES, training=False)).numpy()
    conv_1 = keras.Model(first.inputs, first.get_layer("conv").output)(IMAGES).numpy()
    conv_2 = second.get_layer("conv")(after).numpy()
    for features, expected in (
        ("first", [first(IMAGES, training=False).numpy()]),
        ("second/conv", [conv_2]),
        (["middle", "second/conv"], [after, conv_2]),
        (["first/relu", "first/conv"], [first(IMAGES, training=False).numpy(), conv_1]),
    ):
        backbone = etl.backbone(path, features=features)
        pooled = np.concatenate([net.mean((1, 2)) for net in expected], -1)
        np.testing.assert_allclose(build(backbone, IMAGES)[0], pooled, rtol=1e-4, atol=1e-5)
    backbone = etl.backbone(path, features=["middle", "second/conv"])
    _, moved = one_step(backbone, "last_layers(1)", tmp_path)
    assert moved == {"conv_1/kernel", "conv_1/bias"}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("second/con", "'second' of .* has no layer 'con'; did you mean 'conv'"),
        ("secnd", "has no layer 'secnd'; did you mean 'second'"),
        ("middle/conv", "has no layer 'middle/conv'; did you mean 'middle'. Known: .*first/conv"),
        (["first/conv", "middle"], "first/conv cannot be joined with what comes after 'first'"),
    ],
)
def test_places_that_nested_models_do_not_have(nested, features, message):
    with pytest.raises(UserError, match=message):
        etl.backbone(nested[0], features=features)


@pytest.fixture(scope="module")
def subclassed(tmp_path_factory):
    root = tmp_path_factory.mktemp("subclassed")
    model = Subclassed()
    model(IMAGES)
    tiny.randomize(model, 8)
    model.save(str(root / "folder"), save_format="tf")
    model.save(str(root / "model.keras"))
    model.save_weights(str(root / "weights.h5"))
    return root, model


@pytest.mark.parametrize(("tuning", "batch_norm"), [("scopes('norm')", "inference"), ("full", "train")])
def test_a_subclassed_saved_model_moves_what_it_says(subclassed, tuning, batch_norm, tmp_path):
    root, model = subclassed
    backbone = etl.backbone(str(root / "folder"))
    names = {v.name for v in backbone.structure.variables}
    norm = {v.name for v in backbone.structure.variables if "norm" in v.name and v.trainable}
    assert (len(names), len(norm)) == (6, 2)
    values, moved = one_step(backbone, tuning, tmp_path, batch_norm)
    assert moved == (names if tuning == "full" else norm)
    wanted = sorted((weight.numpy() for weight in model.weights), key=repr)
    for value, want in zip(sorted(values.values(), key=repr), wanted):
        np.testing.assert_array_equal(value, want)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.keras", r"is not a Functional or Sequential Keras model; .*model\.save\('FOLDER', save_format='tf'\)"),
        ("weights.h5", "holds only weights, no model; give it to the network"),
    ],
)
def test_subclassed_models_without_a_graph_are_refused_with_the_remedy(subclassed, name, message):
    given = {"custom_objects": {"Subclassed": Subclassed}} if name.endswith(".keras") else {}
    with pytest.raises(UserError, match=message):
        etl.backbone(str(subclassed[0] / name), **given)


def test_a_subclassed_folder_cannot_be_cut(subclassed):
    folder = str(subclassed[0] / "folder")
    with pytest.raises(UserError, match="is not a Functional or Sequential Keras model"):
        etl.backbone(f"keras_model({folder!r}, features='conv')")
    with pytest.raises(UserError, match="gives one output without a name; leave 'conv' out"):  # as a SavedModel
        etl.backbone(folder, features="conv")
