"""Files that a newer Keras 2 wrote than the one that is here."""

from __future__ import annotations

import json
import zipfile

import h5py
import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.keras.versions import saved_version
from estimator_tl.compat import keras
from estimator_tl.compat.keras2 import keras2_version, rewrite_keras_metadata
from estimator_tl.compat.versions import has_native_estimator
from estimator_tl.errors import UserError
from tests import tiny
from tests.backbones.building import IMAGES, build

LAYERS = keras.layers
OFF = {"InputLayer": {"optional": False}, "MultiHeadAttention": {"softmax_robust_masking": False}}
ON = {"MultiHeadAttention": {"softmax_robust_masking": True}}


def newer(config, settings):
    """A configuration as tf_keras 2.16 and later writes it."""
    if isinstance(config, list):
        return [newer(value, settings) for value in config]
    if not isinstance(config, dict):
        return config
    changed = {key: newer(value, settings) for key, value in config.items()}
    if "keras_version" in changed:
        changed["keras_version"] = "2.99.0"
    if isinstance(changed.get("module"), str):
        changed["module"] = changed["module"].replace("keras.src", "tf_keras.src").replace("tf_tf_", "tf_")
    if isinstance(changed.get("config"), dict):
        changed["config"].update(settings.get(changed.get("class_name"), {}))
    return changed


def save_newer(model, path, settings):
    """Writes a file as a newer Keras does."""
    if not path.suffix:
        model.save(str(path), save_format="tf")
        rewrite_keras_metadata(str(path), str(path), lambda config: newer(config, settings))
        return str(path)
    model.save(str(path))
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(newer(json.loads(file.attrs["model_config"]), settings))
            file.attrs["keras_version"] = "2.99.0"
        return str(path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            is_json = name.endswith(".json")
            archive.writestr(name, json.dumps(newer(json.loads(data), settings)) if is_json else data)
    return str(path)


def model_with_attention():
    inputs = keras.Input((8, 8, 3))
    net = LAYERS.Reshape((8, 24))(inputs)
    net = LAYERS.GlobalAveragePooling1D()(LAYERS.MultiHeadAttention(2, 4)(net, net))
    model = keras.Model(inputs, keras.Sequential([keras.Input((24,)), LAYERS.Dense(3)])(net))
    tiny.randomize(model, 5)
    return model


@pytest.mark.parametrize("name", ["newer.h5", "newer.keras", "newer"])
def test_settings_that_are_off_are_left_out(name, tmp_path):
    model = model_with_attention()
    expected = model(IMAGES).numpy()
    path = save_newer(model, tmp_path / name, OFF)
    assert len(etl.backbone(path, drop_top=1).structure.layers) == 4
    backbone = etl.backbone(path)
    assert (backbone.kind, len(backbone.structure.layers)) == ("Keras model", 5)
    np.testing.assert_allclose(build(backbone, IMAGES)[0], expected, rtol=1e-4, atol=1e-5)
    assert saved_version(path) == "2.99.0"


@pytest.mark.skipif(not has_native_estimator(), reason="this Keras 2 knows the setting")
@pytest.mark.parametrize("name", ["newer.h5", "newer.keras"])
def test_settings_that_are_on_are_named(name, tmp_path):
    path = save_newer(model_with_attention(), tmp_path / name, {**OFF, **ON})
    with pytest.raises(UserError) as error:
        etl.backbone(path)
    assert str(error.value).endswith(
        "; it is from Keras 2.99.0 and has MultiHeadAttention with softmax_robust_masking=True; use a TensorFlow with "
        f"this Keras, or save it again with Keras {keras2_version()}."
    )
    assert "\n" not in str(error.value)
