"""Layers of Keras models as features: one or several, pooled, joined, and what they do not need."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import keras
from estimator_tl.errors import UserError
from tests.backbones.building import IMAGES, build
from tests.backbones.keras_steps import assert_same, one_step

LAYERS = keras.layers


def test_features_are_pooled_and_joined(keras_h5):
    model = keras.models.load_model(keras_h5.handle)
    ends = [model.get_layer(name).output for name in ("relu1", "bn2")]
    expected = [net.numpy() for net in keras.Model(model.inputs, ends)(IMAGES, training=False)]
    for pooling in ("avg", "max", "flatten"):
        backbone = etl.backbone(keras_h5.handle, features=["relu1", "bn2"], pooling=pooling)
        pooled = {
            "avg": [net.mean((1, 2)) for net in expected],
            "max": [net.max((1, 2)) for net in expected],
            "flatten": [net.reshape(2, -1) for net in expected],
        }[pooling]
        features, _, _ = build(backbone, IMAGES)
        np.testing.assert_allclose(features, np.concatenate(pooled, -1), rtol=1e-5, atol=1e-6)
        assert backbone.output_shape == (None, features.shape[1])
    assert backbone.structure.layers[-1] == "bn2"
    with pytest.raises(UserError, match="cannot be joined; use pooling"):
        etl.backbone(keras_h5.handle, features=["relu1", "bn2"], pooling="none")


def test_what_features_do_not_need_is_left_out(keras_h5, tmp_path):
    backbone = etl.backbone(f"keras_model({keras_h5.handle!r}, features=['conv1', 'bn1'])")
    values, moved = one_step(backbone, "last_layers(1)", tmp_path)
    assert moved == {"bn1/gamma", "bn1/beta"}
    assert_same(values, {n: v for n, v in keras_h5.values.items() if n.startswith(("conv1", "bn1"))})


def test_features_of_an_application(application):
    handle = application.handle[:-1] + ", features=['conv_pw_1_relu', 'conv_pw_3_relu'])"
    backbone = etl.backbone(handle)
    assert backbone.output_shape == (None, 16 + 32)
    assert backbone.structure.layers[-1] == "conv_pw_3_relu"
    one = etl.backbone(application.handle, features="conv_pw_1_relu")
    assert one.output_shape == (None, 16, 16, 16)
    images = np.random.RandomState(0).rand(2, 32, 32, 3).astype(np.float32)
    np.testing.assert_allclose(build(one, images)[0], build(backbone, images)[0][:, :16], rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="no layer 'conv_pw_1_rlu'; did you mean 'conv_pw_1_relu'"):
        etl.backbone(application.handle, features="conv_pw_1_rlu")


def test_several_outputs_are_chosen_from(tmp_path):
    inputs = keras.Input((8, 8, 3))
    net = LAYERS.Conv2D(4, 3, name="conv")(inputs)
    keras.Model(inputs, [net, LAYERS.ReLU(name="relu")(net)]).save(str(tmp_path / "two.h5"))
    with pytest.raises(UserError, match=r"several outputs .*features='LAYER'.*features=\['LAYER', 'LAYER2'\]"):
        etl.backbone(str(tmp_path / "two.h5"))
    assert etl.backbone(str(tmp_path / "two.h5"), features=["relu", "conv"]).output_shape == (None, 8)


def test_a_layer_that_is_called_twice_is_no_place_to_cut(tmp_path):
    inputs = keras.Input((8, 8, 3))
    twice = LAYERS.Conv2D(3, 1, name="twice")
    keras.Model(inputs, LAYERS.ReLU(name="relu")(twice(twice(inputs)))).save(str(tmp_path / "twice.h5"))
    with pytest.raises(UserError, match="layer 'twice' has several inputs or outputs in this model; name another"):
        etl.backbone(str(tmp_path / "twice.h5"), features="twice")
    assert len(etl.backbone(str(tmp_path / "twice.h5"), features="relu").structure.variables) == 2


@pytest.mark.parametrize("features", [[], ["bn1", "bn1"], [1], 3.5])
def test_features_that_are_no_list_of_layers(keras_h5, features):
    with pytest.raises(UserError, match="must be a name or a list of different names"):
        etl.backbone(keras_h5.handle, features=features)
