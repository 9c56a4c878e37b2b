"""What sources say of themselves, and how bad ones are refused."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import keras, tf
from estimator_tl.compat.keras2 import rebuilding
from estimator_tl.errors import UserError
from estimator_tl.structure import CallMode
from tests import tiny
from tests.backbones.building import IMAGES, build

ALL = ["hub_module", "keras_h5", "keras_zip", "keras_folder", "application"]


@pytest.mark.parametrize("source", ALL, indirect=True)
def test_structure_tells_names_shapes_and_trainability(source):
    backbone = etl.backbone(source.handle)
    structure = backbone.structure
    assert {v.name: v.shape for v in structure.variables} == {n: v.shape for n, v in source.values.items()}
    assert {v.name for v in structure.variables if v.trainable} == source.trainable
    assert backbone.image_spec.shape == (source.size, source.size, 3)
    assert backbone.digest().startswith("sha256:")


def test_hub_module_structure(hub_module):
    structure = etl.backbone(hub_module.handle).structure
    assert structure.layers is None
    assert structure.one_training_switch
    assert structure.groups() == ["stem/conv1", "stem/conv1_bn", "top/conv2", "top/conv2_bn"]


def test_keras_structure(keras_h5):
    structure = etl.backbone(keras_h5.handle).structure
    assert structure.layers == ("picture", "conv1", "bn1", "relu1", "drop", "conv2", "bn2", "relu2")
    by_name = {v.name: v for v in structure.variables}
    assert by_name["bn2/moving_mean"].batch_norm == "bn2/gamma"
    assert by_name["conv2/kernel"].layer == "conv2"
    assert by_name["conv2/kernel"].batch_norm is None


def test_digest_follows_the_content(keras_h5, tmp_path):
    copy = tmp_path / "copy.h5"
    shutil.copy(keras_h5.handle, copy)
    assert etl.backbone(str(copy)).digest() == etl.backbone(keras_h5.handle).digest()
    with h5py.File(copy, "a") as file:
        file["model_weights/conv1/conv1/kernel:0"][0, 0, 0, 0] += 1
    assert etl.backbone(str(copy)).digest() != etl.backbone(keras_h5.handle).digest()


def test_names_do_not_depend_on_what_was_built_before():
    handle = "keras.InceptionV3(weights=None, image_size=75)"
    first = [v.name for v in etl.backbone(handle).structure.variables]
    keras.Sequential([keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()])
    assert [v.name for v in etl.backbone(handle).structure.variables] == first
    assert "conv2d/kernel" in first


@pytest.mark.parametrize("pooling", ["avg", "max", "flatten", "none"])
def test_pooling(keras_h5, pooling):
    whole = keras.models.load_model(keras_h5.handle)(IMAGES, training=False).numpy()
    expected = {
        "avg": whole.mean((1, 2)),
        "max": whole.max((1, 2)),
        "flatten": whole.reshape(2, -1),
        "none": whole,
    }[pooling]
    backbone = etl.backbone(keras_h5.handle, pooling=pooling)
    features, _, _ = build(backbone, IMAGES)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    assert backbone.feature_rank == features.ndim


def test_inner_layer_as_features(keras_h5):
    backbone = etl.backbone(f"keras_model({keras_h5.handle!r}, features='relu1')")
    assert {v.name for v in backbone.structure.variables} == {n for n in keras_h5.values if n[:3] in ("con", "bn1")} - {
        "conv2/kernel"
    }
    with pytest.raises(UserError, match="did you mean 'conv1'"):
        etl.backbone(f"keras_model({keras_h5.handle!r}, features='conv1_')")


def test_dropout_follows_the_mode(keras_h5):
    backbone = etl.backbone(keras_h5.handle)
    still, updates, losses = build(backbone, IMAGES)
    assert (updates, losses) == (0, 1)
    dropped, updates, _ = build(backbone, IMAGES, dropout=True)
    assert not np.allclose(still, dropped)
    assert updates == 0  # dropout alone moves no statistics
    _, updates, _ = build(backbone, IMAGES, train_batch_norm=frozenset({"bn2/gamma"}))
    assert updates == 2


def test_batch_norm_in_training_mode_without_dropout_is_deterministic(keras_h5):
    backbone = etl.backbone(keras_h5.handle)
    mode = {"train_batch_norm": frozenset({"bn1/gamma", "bn2/gamma"}), "dropout": False}
    first, second = build(backbone, IMAGES, **mode)[0], build(backbone, IMAGES, **mode)[0]
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, build(backbone, IMAGES)[0])


def test_preprocessing_is_the_familys_own(application):
    spec = etl.backbone(application.handle).image_spec
    assert spec.range_text == "keras.applications.mobilenet.preprocess_input"
    np.testing.assert_allclose(spec.preprocess(tf.constant([0.0, 127.5, 255.0])), [-1, 0, 1])


def test_caffe_preprocessing_of_vgg():
    spec = etl.backbone("keras.VGG16(weights=None, image_size=32)").image_spec
    pixels = tf.constant([[[[10.0, 20.0, 30.0]]]])
    expected = [30 - 103.939, 20 - 116.779, 10 - 123.68]
    np.testing.assert_allclose(spec.preprocess(pixels).numpy()[0, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "probe"), [(None, [0.0, 1.0]), ((-1.0, 1.0), [-1.0, 1.0]), ((0.0, 255.0), [0.0, 255.0])]
)
def test_input_range_of_personal_models(keras_h5, given, probe):
    spec = etl.backbone(keras_h5.handle, input_range=given).image_spec
    np.testing.assert_allclose(spec.preprocess(tf.constant([0.0, 255.0])), probe)


def test_a_second_keras_in_the_process_changes_nothing(keras_h5):
    other = {"keras", "tf_keras"} - {keras.Model.__module__.partition(".")[0]}
    second = pytest.importorskip(other.pop())
    saved = {"class_name": "Dense", "module": "keras.layers", "config": {"units": 1}, "registered_name": None}
    before = type(keras.layers.deserialize(saved))
    with rebuilding({}):
        # Layers of the other package would make the rest of this test run without end.
        assert type(keras.layers.deserialize(saved)) is keras.layers.Dense
    assert type(keras.layers.deserialize(saved)) is before
    assert second.layers.Dense is not keras.layers.Dense
    backbone = etl.backbone(keras_h5.handle)
    with tf.Graph().as_default():
        built = backbone.build(tf.zeros([2, tiny.SIZE, tiny.SIZE, 3]), CallMode())
    assert all(np.array_equal(built.initial_values()[name], value) for name, value in keras_h5.values.items())
    assert set(built.variables) == set(keras_h5.values)


def test_old_layout_weights_named_like_the_new_one(application, tmp_path):
    """Keras 2 would read any *.weights.h5 in the new layout and fail."""
    old = application.handle.split("weights='")[1].split("'")[0]
    path = tmp_path / "mobilenet.weights.h5"
    shutil.copy(old, path)
    backbone = etl.backbone(f"keras.MobileNet(alpha=0.25, weights={str(path)!r}, image_size=32)")
    _, name = "", "conv1/kernel"
    np.testing.assert_array_equal(backbone._values[name], application.values[name])


def test_subclassed_keras_model_is_used_as_a_saved_model(tmp_path):
    class Body(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = keras.layers.Conv2D(3, 3, name="conv")

        def call(self, inputs, training=False):
            return self.conv(inputs)

    model = Body()
    model(np.zeros([1, 8, 8, 3], np.float32))
    model.save(str(tmp_path / "body"), save_format="tf")
    backbone = etl.backbone(str(tmp_path / "body"))
    assert backbone.structure.layers is None
    features, _, _ = build(backbone, IMAGES)
    np.testing.assert_allclose(features, model(IMAGES).numpy().mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_hub_cache_is_used_for_urls(hub_module, tmp_path, monkeypatch):
    import hashlib

    url = "https://tfhub.dev/someone/tiny/1"
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    key = hashlib.sha1(url.encode()).hexdigest()
    shutil.copytree(hub_module.handle, tmp_path / key)
    assert len(etl.backbone(url).structure.variables) == len(hub_module.values)


def test_greyscale_model_takes_greyscale(tmp_path):
    model = keras.Sequential([keras.layers.Conv2D(2, 3, input_shape=(8, 8, 1))])
    model.save(str(tmp_path / "grey.h5"))
    assert etl.backbone(str(tmp_path / "grey.h5")).image_spec.channels == 1
    assert tiny.SIZE == 8


def test_nested_models_keep_their_values_and_their_batch_norm_apart(tmp_path):
    """The order of a nested model's variables depends on what is trainable; values must not be swapped by it."""
    inner = keras.Sequential(
        [
            keras.layers.Conv2D(3, 1, name="conv", input_shape=(8, 8, 3)),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.Conv2D(3, 1, name="conv_b"),
            keras.layers.BatchNormalization(name="bn_b"),
        ],
        name="inner",
    )
    model = keras.Sequential([inner, keras.layers.BatchNormalization(name="outer_bn")])
    model.build((None, 8, 8, 3))
    tiny.randomize(model, 6)
    expected = model(IMAGES, training=False).numpy().mean((1, 2))
    model.save(str(tmp_path / "nested.h5"))
    backbone = etl.backbone(str(tmp_path / "nested.h5"))
    assert backbone.structure.layers == ("inner", "outer_bn")
    features, updates, _ = build(backbone, IMAGES)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert updates == 0
    _, updates, _ = build(backbone, IMAGES, train_batch_norm=frozenset({"bn_b/gamma"}))
    assert updates == 2
