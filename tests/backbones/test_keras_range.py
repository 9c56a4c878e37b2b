"""What Keras models do to their images before the first weights, and the range that they get."""

from __future__ import annotations

import re

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.input.range import BYTES, SIGNED, UNIT, UnknownRangeError
from estimator_tl.backbones.keras.input import keras_finding
from estimator_tl.compat import keras, tf
from estimator_tl.structure import CallMode
from estimator_tl.tf_internals.eager import run_eagerly_in_thread
from tests.backbones import rescaling_models as models
from tests.backbones.rescaling_models import LAYERS, around, branches, functional, sequential

APPLICATIONS = keras.applications
FORMS = ("h5", "keras", "folder", "graph")


def found(make, size=models.SIZE, channels=3):
    """What the model that `make` returns does; layers have the names of a new program."""
    return run_eagerly_in_thread(lambda: keras_finding(make(), (1, size, size, channels)))


@pytest.mark.parametrize(
    ("make", "expected", "text"),
    [
        (lambda: functional(models.rescaling()), BYTES, "x / 127.5 - 1 (layer rescaling)"),
        (
            lambda: functional(lambda x: x / 127.5 - 1),
            BYTES,
            "x / 127.5 - 1 (layer tf.math.truediv, layer tf.math.subtract)",
        ),
        (lambda: functional(lambda x: x / 255.0), BYTES, "x / 255 (layer tf.math.truediv)"),
        (
            lambda: functional(lambda x: tf.cast(x, tf.float32) * (1 / 255)),
            BYTES,
            "x / 255 (layer tf.math.multiply)",
        ),
        (
            lambda: functional(lambda x: tf.image.convert_image_dtype(tf.cast(x, tf.uint8), tf.float32)),
            BYTES,
            "x / 255 (layer tf.image.convert_image_dtype)",
        ),
        (
            lambda: functional(APPLICATIONS.mobilenet.preprocess_input),
            BYTES,
            "x / 127.5 - 1 (layer tf.math.truediv, layer tf.math.subtract)",
        ),
        (
            lambda: functional(APPLICATIONS.vgg16.preprocess_input),
            BYTES,
            "x - [123.7, 116.8, 103.9] (layer tf.nn.bias_add)",
        ),
        (lambda: functional(LAYERS.Lambda(lambda x: x / 127.5 - 1)), BYTES, "x / 127.5 - 1 (layer lambda)"),
        (lambda: functional(models.Divided()), BYTES, "x / 127.5 - 1 (layer divided)"),
        (lambda: functional(models.Stem()), BYTES, "x / 127.5 - 1 (layer stem)"),
        (lambda: around(models.Subclassed()), BYTES, "x / 127.5 - 1 (layer rescaling)"),
        (
            lambda: sequential(models.augmentation(), LAYERS.Rescaling(1 / 255)),
            BYTES,
            "x / 255 (layer rescaling)",
        ),
        (lambda: around(functional(models.rescaling())), BYTES, "x / 127.5 - 1 (layer rescaling)"),
        (
            lambda: around(functional(models.rescaling()), models.augmentation(), training=False),
            BYTES,
            "x / 127.5 - 1 (layer rescaling)",
        ),
        (
            lambda: around(around(functional(lambda x: x)), lambda x: x * 2 - 1),
            UNIT,
            "x * 2 - 1 (layer tf.math.multiply, layer tf.math.subtract)",
        ),
        (lambda: around(functional(LAYERS.Rescaling(255)), LAYERS.Rescaling(1 / 255)), None, ""),
        (
            lambda: sequential(LAYERS.Resizing(9, 7), LAYERS.ZeroPadding2D(2), LAYERS.Rescaling(1 / 255)),
            BYTES,
            "x / 255 (layer rescaling)",
        ),
        (
            lambda: sequential(LAYERS.Permute((2, 1, 3)), LAYERS.Reshape((4, 16, 3)), LAYERS.Rescaling(1 / 255)),
            BYTES,
            "x / 255 (layer rescaling)",
        ),
        (
            lambda: sequential(LAYERS.CenterCrop(6, 6), LAYERS.RandomCrop(5, 5), LAYERS.Rescaling(1 / 255)),
            BYTES,
            None,
        ),
        (
            lambda: sequential(LAYERS.Rescaling(1 / 255), LAYERS.Dropout(0.2), LAYERS.GaussianNoise(0.1)),
            BYTES,
            "x / 255 (layer rescaling)",
        ),
        (lambda: functional(models.adapted(-1, 1)), SIGNED, None),
        (lambda: functional(models.adapted(0, 1)), UNIT, None),
        (lambda: functional(models.adapted(0, 255)), BYTES, None),
        (lambda: functional(APPLICATIONS.densenet.preprocess_input), BYTES, None),
        (lambda: functional(LAYERS.Normalization(**models.IMAGENET)), UNIT, None),
        (lambda: functional(LAYERS.Normalization(**models.IMAGENET_BYTES)), BYTES, None),
        (lambda: models.batch_norm(120, 60**2), BYTES, "x / 60 - 2 (layer batch_normalization)"),
        (lambda: models.batch_norm(0.4, 0.25**2), UNIT, None),
        (lambda: models.batch_norm(0, 1), None, ""),
        (lambda: functional(LAYERS.Normalization()), None, ""),
        (lambda: functional(lambda x: x), None, ""),
        (lambda: functional(LAYERS.RandomBrightness(0.2)), None, ""),
        (lambda: branches(lambda x: x / 255, lambda x: x / 127.5 - 1), BYTES, None),
    ],
)
def test_a_model_that_tells_its_range(make, expected, text):
    finding = found(make)
    assert finding.range == expected
    if text is not None:
        assert re.sub(r"_\d+\b", "", finding.text) == text


@pytest.mark.parametrize(
    "make",
    [
        lambda: functional(tf.image.per_image_standardization),
        lambda: functional(LAYERS.Lambda(tf.image.per_image_standardization)),
        lambda: functional(LAYERS.LayerNormalization()),
        lambda: functional(lambda x: x * 3 + 7),
        lambda: functional(tf.image.rgb_to_yuv),
        lambda: branches(lambda x: x, lambda x: x / 127.5 - 1),
        lambda: branches(lambda x: x * 2 - 1, lambda x: x / 127.5 - 1),
        lambda: models.batch_norm(0.178, 0.63),  # on its way from 0 and 1 to the statistics of [0, 1]
        lambda: models.batch_norm(-0.05, 0.25),
    ],
)
def test_a_model_from_which_no_range_follows(make):
    finding = found(make)
    assert finding.text
    assert finding.range is None


@pytest.mark.full
def test_attention_and_recurrent_layers():
    def attention():
        inputs = keras.Input((models.SIZE, models.SIZE, 3))
        tokens = LAYERS.Reshape((models.SIZE, models.SIZE * 3))(inputs / 255)
        return keras.Model(inputs, LAYERS.Flatten()(LAYERS.MultiHeadAttention(2, 4)(tokens, tokens)))

    def recurrent():
        return keras.Sequential(
            [
                keras.Input((models.SIZE, models.SIZE, 3)),
                LAYERS.TimeDistributed(LAYERS.Rescaling(1 / 255)),
                LAYERS.Reshape((models.SIZE, models.SIZE * 3)),
                LAYERS.LSTM(4),
            ]
        )

    assert [found(make).range for make in (attention, recurrent)] == [BYTES, BYTES]


def saved(make, path, form):
    """Saves a model in a form; returns the path."""
    path = str(path / {"h5": "m.h5", "keras": "m.keras"}.get(form, "m"))

    def save():
        model = make()
        if form == "graph":
            tf.saved_model.save(model, path)
        else:
            model.save(path, **({"save_format": "tf"} if form == "folder" else {}))

    run_eagerly_in_thread(save)
    return path


MAKERS = {
    "rescaling": (lambda: functional(models.rescaling()), BYTES),
    "operations": (lambda: functional(lambda x: x / 127.5 - 1), BYTES),
    "augmented": (lambda: sequential(models.augmentation(), LAYERS.Rescaling(1 / 255)), BYTES),
    "nested": (lambda: around(functional(lambda x: x * 2 - 1), models.augmentation(), training=False), UNIT),
    "adapted": (lambda: functional(models.adapted(0, 255)), BYTES),
    "plain": (lambda: functional(lambda x: x), UNIT),
}
IN_MAKE_TEST = {("rescaling", form) for form in FORMS} | {("operations", "h5"), ("augmented", "keras"), ("plain", "h5")}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(name, form, marks=() if (name, form) in IN_MAKE_TEST else pytest.mark.full)
        for name in MAKERS
        for form in FORMS
    ],
)
def test_range_of_each_form(name, form, tmp_path):
    make, expected = MAKERS[name]
    spec = etl.backbone(saved(make, tmp_path, form)).image_spec
    assert spec.range == expected
    low, high = expected
    assert spec.range_text == f"[{low:g}, {high:g}]"
    np.testing.assert_array_equal(spec.preprocess(tf.constant([0.0, 255.0])), expected)


@pytest.mark.parametrize("form", ["h5", *(pytest.param(form, marks=pytest.mark.full) for form in FORMS[1:])])
def test_a_form_from_which_no_range_follows_is_refused(form, tmp_path):
    path = saved(lambda: functional(lambda x: tf.math.multiply(x, 3.0) + 7.0), tmp_path, form)
    with pytest.raises(UnknownRangeError, match="no range of images follows from that: x \\* 3 \\+ 7 \\("):
        etl.backbone(path)
    assert etl.backbone(path, input_range=(-1, 1)).image_spec.range == SIGNED


def test_lambda_layers_that_may_be_loaded(tmp_path):
    path = saved(lambda: functional(LAYERS.Lambda(lambda x: x / 127.5 - 1)), tmp_path, "h5")
    assert etl.backbone(path, allow_unsafe_deserialization=True).image_spec.range == BYTES


def test_subclassed_models(tmp_path):
    def make():
        model = models.Subclassed()
        model(np.zeros((1, models.SIZE, models.SIZE, 3), np.float32))
        return model

    assert etl.backbone(saved(make, tmp_path, "folder"), image_size=models.SIZE).image_spec.range == BYTES


def test_grey_images_and_sizes_that_the_user_says(tmp_path):
    path = saved(lambda: functional(lambda x: x / 255.0, channels=1, size=None), tmp_path, "h5")
    assert etl.backbone(path, image_size=9).image_spec.range == BYTES


@pytest.mark.parametrize(
    "layer", [lambda: models.adapted(0, 255), pytest.param(models.rescaling, marks=pytest.mark.full)]
)
def test_features_are_those_of_the_model(layer, tmp_path):
    """The file's own arithmetic is what runs in the graph, on the values that its range says."""
    pixels = np.random.RandomState(0).randint(0, 256, (2, models.SIZE, models.SIZE, 3)).astype(np.float32)
    expected = []

    def make():
        model = functional(layer())
        expected.append(model.predict(pixels, verbose=0))
        return model

    backbone = etl.backbone(saved(make, tmp_path, "h5"))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        built = backbone.build(backbone.image_spec.preprocess(tf.constant(pixels)), CallMode())
        session.run(tf.compat.v1.global_variables_initializer())
        values = built.initial_values()
        for name, variable in built.variables.items():
            variable.load(values[name], session)
        np.testing.assert_allclose(session.run(built.features), expected[0], rtol=1e-5, atol=1e-5)
