"""What an input_fn gives, against what the source takes: types, shapes, ranges, nothing at all."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.input import hooks as input_hooks
from estimator_tl.backbones.input.hooks import ImageRangeHook, out_of_range
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from estimator_tl.specs import ImageSpec
from estimator_tl.structure import CallMode
from tests.tiny import SIZE

SOURCES = ["hub_module", "keras_h5", "tf1_module", "v1_checkpoint"]
PIXELS = np.random.RandomState(0).randint(0, 256, (8, SIZE, SIZE, 3))
IMAGES = (PIXELS / 255).astype(np.float32)
LABELS = np.arange(8) % 3


def batches(images, labels=LABELS):
    return lambda: tf.data.Dataset.from_tensor_slices((images, labels)).repeat().batch(4)


def some(images):
    return lambda: tf.data.Dataset.from_tensor_slices(images).batch(4)


def of_unknown_shape(images):
    return lambda: some(images)().map(lambda batch: tf.numpy_function(lambda value: value, [batch], batch.dtype))


def model(source, model_dir, **settings):
    backbone = etl.backbone(source.handle, **settings)
    function = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3), show_plan=lambda text: None)
    return estimator.Estimator(function, str(model_dir), estimator.RunConfig(tf_random_seed=1), params={})


@pytest.fixture(scope="module")
def trained(keras_h5, tmp_path_factory):
    """A model after one step."""
    one = model(keras_h5, tmp_path_factory.mktemp("run"))
    one.train(batches(IMAGES), max_steps=1)
    return one


def features(backbone, images, shape=(None, SIZE, SIZE, 3)):
    """What the source makes of images that are fed with a static shape."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        fed = tf.compat.v1.placeholder(images.dtype, shape)
        built = backbone.build(fed, CallMode())
        session.run(tf.compat.v1.global_variables_initializer())
        return session.run(built.features, {fed: images})


@pytest.fixture
def warnings(monkeypatch):
    shown = []
    monkeypatch.setattr(input_hooks.logging, "warning", lambda text, *values: shown.append(text % values))
    return shown


@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_images_that_are_no_floats_are_refused(source):
    backbone = etl.backbone(source.handle)
    for dtype in ("uint8", "int32", "int64", "bool", "string"):
        with tf.Graph().as_default():
            images = tf.compat.v1.placeholder(dtype, [None, SIZE, SIZE, 3])
            with pytest.raises(UserError) as caught:
                backbone.build(images, CallMode())
        assert str(caught.value) == (
            f"{backbone.handle} takes images as float32, values [0, 1], but the input_fn gives {dtype}; for pixels of "
            "0 to 255 return image_spec.preprocess(tf.cast(image, tf.float32)) there, with the image_spec of this "
            "backbone."
        )


def test_each_phase_refuses_integers(trained, tmp_path):
    def receiver():
        images = tf.compat.v1.placeholder(tf.uint8, [None, SIZE, SIZE, 3])
        return estimator.export.ServingInputReceiver({"image": images}, {"image": images})

    for call in (
        lambda: trained.train(batches(PIXELS.astype(np.uint8)), steps=1),
        lambda: trained.evaluate(batches(PIXELS), steps=1),
        lambda: next(trained.predict(some(PIXELS.astype(np.int32)))),
        lambda: trained.export_saved_model(str(tmp_path / "export"), receiver),
    ):
        with pytest.raises(UserError, match=r"takes images as float32, values \[0, 1\], but the input_fn gives u?int"):
            call()


def test_other_floats_and_unknown_shapes_give_the_numbers_of_float32(hub_module):
    backbone = etl.backbone(hub_module.handle)
    expected = features(backbone, IMAGES)
    np.testing.assert_array_equal(features(backbone, IMAGES.astype(np.float64)), expected)
    np.testing.assert_array_equal(features(backbone, IMAGES, shape=None), expected)
    halves = IMAGES.astype(np.float16)
    np.testing.assert_array_equal(features(backbone, halves), features(backbone, halves.astype(np.float32)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"not compatible with expected shape \[\?,8,8,3\]"):
        features(backbone, IMAGES[:, :4], shape=None)


def test_pixels_are_right_as_they_are_for_a_source_of_0_to_255(hub_module):
    backbone = etl.backbone(hub_module.handle, input_range=(0, 255))
    expected = features(backbone, PIXELS.astype(np.float32))
    np.testing.assert_array_equal(features(backbone, PIXELS.astype(np.uint8)), expected)


def test_sparse_and_ragged_input_is_named(text_module):
    backbone = etl.backbone(text_module.handle)
    with tf.Graph().as_default(), pytest.raises(UserError, match="takes a dense tensor, but the input_fn gives a Ragg"):
        backbone.build(tf.ragged.constant([["a"], ["b", "c"]]), CallMode())


@pytest.mark.parametrize(
    ("low", "high", "smallest", "largest", "expected"),
    [
        (0, 1, 0, 255, "far outside of"),
        (-1, 1, 0, 255, "far outside of"),
        (0, 1, -1, 1, "far outside of"),
        (-1, 1, -2.1, 2.6, "far outside of"),
        (0, 255, 0, 1, "a tiny part of"),
        (-123.7, 151.1, -1, 1, "a tiny part of"),
        (0, 1, 0, 1, None),
        (0, 1, -0.2, 1.3, None),
        (-1, 1, 0, 1, None),
        (0, 255, 0, 0, None),
        (0, 255, 30, 220, None),
        (0, 1, np.nan, np.nan, None),
        (0, 1, 0, np.inf, "far outside of"),
    ],
)
def test_far_outside_of_a_range(low, high, smallest, largest, expected):
    assert out_of_range(low, high, smallest, largest) == expected


def test_a_range_that_is_missed_is_said_once_a_run(keras_h5, tmp_path, warnings):
    trained = model(keras_h5, tmp_path)
    trained.train(batches(PIXELS.astype(np.float32)), max_steps=2)
    trained.evaluate(batches(PIXELS.astype(np.float32)), steps=1)
    assert warnings == [
        f"the first batch of images has values from {PIXELS[:4].min():g} to {PIXELS[:4].max():g}, far outside of the "
        f"range of {keras_h5.handle}, [0, 1] (0 to 1); scale them in the input_fn, e.g. pixels of 0 to 255 by "
        "image_spec.preprocess of this backbone."
    ]


def test_the_range_of_a_preprocessing_function(warnings, tmp_path):
    mean = np.array([103.9, 116.8, 123.7], np.float32)
    spec = ImageSpec(SIZE, SIZE, 3, lambda pixels: pixels[..., ::-1] - mean, "BGR without means")
    for name, scale in (("bytes", 255), ("unit", 1)):
        with tf.Graph().as_default():
            images = tf.constant(IMAGES * scale)
            hook = ImageRangeHook("vgg", spec, images, str(tmp_path / name))
            with tf.compat.v1.train.MonitoredSession(hooks=[hook]) as session:
                session.run(images)
    assert warnings == [
        "the first batch of images has values from 0 to 1, a tiny part of the range of vgg, BGR without means "
        "(-123.7 to 151.1); scale them in the input_fn, e.g. pixels of 0 to 255 by image_spec.preprocess of this "
        "backbone."
    ]


def test_every_replica_is_looked_at(keras_h5, tmp_path, warnings):
    images = np.concatenate([IMAGES[:4], PIXELS[4:].astype(np.float32)])  # a batch for each replica
    backbone = etl.backbone(keras_h5.handle)
    function = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3), show_plan=lambda text: None)
    config = etl.run_config(str(tmp_path), distribution="mirrored", cpu_replicas=2)
    trained = estimator.Estimator(function, config=config, params={})
    trained.train(batches(images), max_steps=2)
    (text,) = warnings
    assert f"to {PIXELS[4:].max():g}, far outside of" in text


def test_an_evaluation_without_a_batch_is_an_error(trained):
    with pytest.raises(UserError) as caught:
        trained.evaluate(lambda: batches(IMAGES)().take(0))
    assert str(caught.value) == (
        "the evaluation's input_fn gives no batch, so there is no loss to report; look at its files and filters, or "
        "leave the evaluation out."
    )
    assert trained.evaluate(lambda: batches(IMAGES)().take(1))["loss"] > 0
