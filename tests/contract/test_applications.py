"""Keras Applications: each family with its own preprocessing, one training step, exactly what moves.

The networks have random weights in a file, at the smallest size that they can be built for.
"""

from __future__ import annotations

import importlib
import shutil
import sys

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.keras import applications as keras_applications
from estimator_tl.compat import estimator, keras
from estimator_tl.errors import UserError
from tests import applications, tiny
from tests.checkpoints import checkpoint_values
from tests.contract.training import HEAD

SMALLEST = {
    "VGG16": 32, "VGG19": 32, "ResNet50": 32, "ResNet101": 32, "ResNet152": 32, "InceptionV3": 75,
    "InceptionResNetV2": 75, "MobileNet": 32, "MobileNetV2": 32, "DenseNet121": 32, "DenseNet169": 32,
    "DenseNet201": 32, "EfficientNetB0": 32, "EfficientNetB1": 32, "EfficientNetB2": 32, "NASNetMobile": 32,
    "NASNetLarge": 32,
}  # fmt: skip
FAMILY = {
    "VGG16": "vgg16", "VGG19": "vgg19", "ResNet50": "resnet50", "ResNet101": "resnet", "ResNet152": "resnet",
    "InceptionV3": "inception_v3", "InceptionResNetV2": "inception_resnet_v2", "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2", "DenseNet121": "densenet", "DenseNet169": "densenet", "DenseNet201": "densenet",
    "EfficientNetB0": "efficientnet", "EfficientNetB1": "efficientnet", "EfficientNetB2": "efficientnet",
    "NASNetMobile": "nasnet", "NASNetLarge": "nasnet",
}  # fmt: skip
LAYERS = 12
IN_MAKE_TEST = {"MobileNetV2"}
# What the families make of the picture's one pixel (10, 20, 255).
PIXEL = (10.0, 20.0, 255.0)
CAFFE = (255 - 103.939, 20 - 116.779, 10 - 123.68)
SYMMETRIC = (10 / 127.5 - 1, 20 / 127.5 - 1, 1.0)
TORCH = ((10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225)
PREPROCESSED = {
    "vgg16": CAFFE, "vgg19": CAFFE, "resnet50": CAFFE, "resnet": CAFFE, "inception_v3": SYMMETRIC,
    "inception_resnet_v2": SYMMETRIC, "mobilenet": SYMMETRIC, "mobilenet_v2": SYMMETRIC, "densenet": TORCH,
    "efficientnet": PIXEL, "nasnet": SYMMETRIC,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_MAKE_TEST else pytest.mark.full) for name in SMALLEST]
)
def test_one_step_of_each(name, tmp_path):
    weights = tmp_path / "weights.h5"
    size = SMALLEST[name]
    model = applications.save_random(name, weights, size)
    backbone = etl.backbone(f"keras.{name}(weights={str(weights)!r}, image_size={size})")
    values = applications.values(model)
    assert [variable.name for variable in backbone.structure.variables] == list(values)
    assert backbone.image_spec.shape == (size, size, 3)

    model_fn = etl.make_model_fn(
        backbone,
        etl.heads.classifier(n_classes=3),
        etl.tuning.last_layers(LAYERS),
        etl.optimizers.adam(0.01),  # moves all that has a gradient, however small
        show_plan=lambda text: None,
    )
    config = estimator.RunConfig(tf_random_seed=1, save_summary_steps=1000)
    estimator.Estimator(model_fn, str(tmp_path / "run"), config, params={}).train(tiny.random_batches(size), steps=1)
    first, last = (checkpoint_values(tmp_path / "run" / f"model.ckpt-{step}") for step in (0, 1))
    for variable, value in values.items():
        np.testing.assert_array_equal(first[variable], value, err_msg=f"step 0 of {variable}")
    moved = {variable for variable in values if not np.array_equal(first[variable], last[variable])}
    assert moved == applications.last(model, LAYERS)
    assert 0 < len(moved) < len(values)
    assert {variable for variable in HEAD if not np.array_equal(first[variable], last[variable])} == HEAD
    shutil.rmtree(tmp_path / "run")  # of NASNetLarge a gigabyte


@pytest.mark.parametrize("name", list(SMALLEST))
def test_preprocessing_is_the_familys_own(name):
    function = getattr(keras.applications, name)
    preprocess = keras_applications._preprocess(function)
    family = getattr(keras.applications, FAMILY[name])
    picture = np.random.RandomState(0).randint(0, 256, (2, 5, 4, 3)).astype(np.float32)
    expected = family.preprocess_input(picture.copy())
    np.testing.assert_allclose(preprocess(picture.copy()), expected, rtol=1e-6, atol=1e-5)
    pixel = np.full((1, 1, 1, 3), PIXEL, np.float32)
    np.testing.assert_allclose(np.ravel(preprocess(pixel)), PREPROCESSED[FAMILY[name]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", keras_applications.names())
def test_every_name_has_preprocessing_and_a_size(name):
    """The size is that of Keras's own model with its top."""
    function = getattr(keras.applications, name)
    module = importlib.import_module(function.__module__)
    preprocess = keras_applications._preprocess(function)
    picture = np.random.RandomState(0).randint(0, 256, (1, 3, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(preprocess(picture.copy()), module.preprocess_input(picture.copy()), rtol=1e-6)
    assert keras_applications._DEFAULT_SIZE.get(name, 224) == KERAS_SIZE.get(name, 224)


@pytest.mark.parametrize(
    ("name", "remedy"), [("MobileNet", "models, or give weights='PATH'."), ("EfficientNetB0", "models.")]
)
def test_without_a_network_the_remedy_gives_the_same_network(name, remedy, monkeypatch):
    """Keras divides by the square root of the deviation in EfficientNet only where it loads ImageNet itself."""

    def offline(*args, **kwargs):
        raise Exception("URL fetch failure on somewhere: None -- no network")

    function = getattr(keras.applications, name)
    monkeypatch.setattr(sys.modules[function.__module__].data_utils, "get_file", offline)
    with pytest.raises(UserError) as error:
        etl.backbone(f"keras.{name}(image_size=128)")
    assert str(error.value).endswith(remedy)


# What the functions' own documentation says.
KERAS_SIZE = {
    "InceptionV3": 299, "InceptionResNetV2": 299, "Xception": 299, "NASNetLarge": 331, "EfficientNetB1": 240,
    "EfficientNetB2": 260, "EfficientNetB3": 300, "EfficientNetB4": 380, "EfficientNetB5": 456, "EfficientNetB6": 528,
    "EfficientNetB7": 600, "EfficientNetV2B1": 240, "EfficientNetV2B2": 260, "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384, "EfficientNetV2M": 480, "EfficientNetV2L": 480,
}  # fmt: skip
