"""Weights of Keras Applications out of files that hold their top, too."""

from __future__ import annotations

import pytest

import estimator_tl as etl
from estimator_tl.compat import keras
from estimator_tl.errors import UserError
from tests import tiny
from tests.backbones.keras_steps import assert_same, in_full

NETWORKS = {"MobileNet": {"alpha": 0.25}, "MobileNetV3Small": {"minimalistic": True}}


def with_top(name, **arguments):
    network = getattr(keras.applications, name)
    model = network(weights=None, classes=5, input_shape=(32, 32, 3), **arguments)
    tiny.randomize(model, 6)
    return model


@pytest.mark.parametrize("name", ["MobileNet", *in_full("MobileNetV3Small")])
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", "_model.h5"])
def test_the_top_is_left_out(name, suffix, tmp_path):
    """Old and new layout of weights, and those of a whole model."""
    arguments = NETWORKS[name]
    model = with_top(name, **arguments)
    path = str(tmp_path / f"top{suffix}")
    (model.save if suffix.startswith("_") else model.save_weights)(path)
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    values = etl.backbone(f"keras.{name}(weights={path!r}, image_size=32, {given})").values()
    expected = tiny.keras_values(model)
    top = set(expected) - set(values)
    assert len(top) == (2 if name == "MobileNet" else 4)
    assert_same(values, {key: value for key, value in expected.items() if key not in top})


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.h5"
    with_top("MobileNet", alpha=0.5).save_weights(str(path))
    with pytest.raises(UserError, match=r"weights .*other\.h5 do not fit keras.MobileNet.*check the network's argum"):
        etl.backbone(f"keras.MobileNet(weights={str(path)!r}, image_size=32, alpha=0.25)")
