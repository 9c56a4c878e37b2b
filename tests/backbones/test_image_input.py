"""Sources that take or give other types than float32, batches of one size, or channels first."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import estimator, keras, tf
from estimator_tl.errors import UserError
from tests import tiny_text
from tests.backbones.named_features import features_of
from tests.checkpoints import checkpoint_values
from tests.tiny import SIZE, random_batches
from tests.tiny_tf1 import HUB_FORMAT_V3

V1 = tf.compat.v1
KERNEL = np.random.RandomState(0).randn(3, 4)
IMAGES = np.random.RandomState(1).rand(5, SIZE, SIZE, 3).astype(np.float32)


def _sides(shape):
    """Returns which dimensions are height and width."""
    return [1, 2] if shape[3] == 3 else [2, 3]


class Colours(tf.Module):
    """Mean colours times a matrix, in one type throughout."""

    def __init__(self, given, inner, shape=(None, SIZE, SIZE, 3), scale=1.0):
        super().__init__()
        self.inner = tf.as_dtype(inner)
        self.kernel = tf.Variable(KERNEL.astype(self.inner.as_numpy_dtype), name="kernel")
        self.scale, self.sides = scale, _sides(shape)
        self.regularization_losses = [tf.function(lambda: 1e-3 * tf.nn.l2_loss(self.kernel), [])]
        spec = tf.TensorSpec(shape, given, "images")
        self.call = tf.function(self._call, [spec])
        self.serve = tf.function(
            lambda images: {"out": self._call(images), "whole": tf.cast(self._call(images), tf.int32)}, [spec]
        )

    def _call(self, images):
        colours = tf.reduce_mean(tf.cast(images, self.inner) * self.scale, self.sides)
        return tf.matmul(colours, self.kernel)


def save(path, *args, called=True, **kwargs):
    model = Colours(*args, **kwargs)
    if called:
        model.__call__ = model.call
    tf.saved_model.save(model, str(path), model.serve)
    return str(path)


def save_tf1(path, given, inner, shape=(None, SIZE, SIZE, 3), scale=1.0):
    builder = V1.saved_model.builder.SavedModelBuilder(str(path))
    with tf.Graph().as_default(), V1.Session() as session:
        images = V1.placeholder(given, shape, "images")
        initial = tf.constant(KERNEL, inner)
        kernel = V1.get_variable("kernel", initializer=initial, use_resource=True)
        V1.add_to_collection(V1.GraphKeys.REGULARIZATION_LOSSES, tf.cast(1e-3, inner) * tf.nn.l2_loss(kernel))
        out = tf.matmul(tf.reduce_mean(tf.cast(images, inner) * tf.cast(scale, inner), _sides(shape)), kernel)
        session.run(V1.global_variables_initializer())
        info = V1.saved_model.utils.build_tensor_info
        signature = V1.saved_model.signature_def_utils.build_signature_def(
            {"images": info(images)}, {"default": info(out), "whole": info(tf.cast(out, tf.int32))}
        )
        builder.add_meta_graph_and_variables(session, [], {"default": signature})
    builder.save()
    (path / "tfhub_module.pb").write_bytes(HUB_FORMAT_V3)
    return str(path)


SAVERS = pytest.mark.parametrize("saver", [save, save_tf1], ids=["SavedModel", "TF1 module"])


def trained(backbone, model_dir, batches=None, **config):
    """Trains a step of everything; returns the kernel before and after."""
    config = estimator.RunConfig(str(model_dir), tf_random_seed=1, **config)
    head, optimizer = etl.heads.classifier(n_classes=3), etl.optimizers.sgd(0.5)
    model_fn = etl.make_model_fn(backbone, head, etl.tuning.full(), optimizer)
    estimator.Estimator(model_fn, config=config, params={}).train(batches or random_batches(SIZE), steps=1)
    return [checkpoint_values(model_dir / f"model.ckpt-{step}")["kernel"] for step in (0, 1)]


@SAVERS
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_models_of_another_precision_are_trained(tmp_path, saver, dtype):
    # Few digits hide what a model does to its images, so the range is said.
    backbone = etl.backbone(saver(tmp_path / "m", dtype, dtype), input_range=(0.0, 1.0))
    assert backbone.output_shape == (None, 4)
    assert [variable.dtype for variable in backbone.structure.variables] == [dtype]
    features = features_of(backbone, IMAGES)
    assert features.dtype == np.float32
    tolerance = {"float64": 1e-6, "float16": 2e-2, "bfloat16": 1e-1}[dtype]
    np.testing.assert_allclose(features, IMAGES.mean((1, 2)) @ KERNEL, atol=tolerance)
    if dtype == "float64":
        before, after = trained(backbone, tmp_path / "run")
        np.testing.assert_array_equal(before, KERNEL)
        assert np.all(before != after)


@SAVERS
def test_bytes_are_given_as_bytes(tmp_path, saver):
    path = saver(tmp_path / "m", "uint8", "float32", scale=1 / 255)
    backbone = etl.backbone(path)
    assert backbone.image_spec.range_text == "[0, 255]"
    pixels = np.round(IMAGES * 255)
    expected = (pixels / 255).mean((1, 2)) @ KERNEL
    np.testing.assert_allclose(features_of(backbone, pixels + 0.4), expected, atol=1e-5)
    with pytest.raises(UserError) as refused:
        etl.backbone(path, input_range=(-1.0, 1.0))
    assert str(refused.value) == (
        f"{path} takes images of type uint8, with values in [0, 255]; leave --input_range out, or give 0,255."
    )
    assert etl.backbone(path, input_range=(0.0, 255.0)).image_spec.range_text == "[0, 255]"


@SAVERS
def test_types_without_a_certain_range_are_refused(tmp_path, saver):
    path = saver(tmp_path / "m", "int32", "float32")
    with pytest.raises(UserError) as refused:
        etl.backbone(path)
    assert str(refused.value) == (
        f"{path} takes images of type int32, for which no range of values is certain; save it again for float32 or "
        "uint8."
    )


@SAVERS
def test_whole_numbers_are_no_features(tmp_path, saver):
    path = saver(tmp_path / "m", "float32", "float32", **({} if saver is save_tf1 else {"called": False}))
    with pytest.raises(UserError) as refused:
        etl.backbone(path, features="whole")
    assert str(refused.value) == (
        f"{path} gives int32, not floating-point features; name an output that holds numbers to learn from, with "
        "features=."
    )


def test_a_text_model_as_the_example_of_tensorflow_hub_exports_it(tmp_path):
    """The tool writes the vectors as float64, as NumPy reads them from a text file."""

    class Embedding(tf.Module):
        def __init__(self):
            super().__init__()
            words = tf.constant(tiny_text.VOCABULARY)
            numbers = tf.range(len(tiny_text.VOCABULARY), dtype=tf.int64)
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(words, numbers), 0)
            self.embeddings = tf.Variable(np.random.RandomState(0).randn(len(tiny_text.VOCABULARY), 4), name="kernel")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, texts):
            words = tf.strings.split(texts)
            rows = tf.gather(self.embeddings, self.table.lookup(words.flat_values))
            return tf.math.segment_sum(rows, words.value_rowids())

    model = Embedding()
    tf.saved_model.save(model, str(tmp_path / "m"))
    backbone = etl.backbone(str(tmp_path / "m"))
    features = features_of(backbone, tiny_text.VOCABULARY[:3])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, model.embeddings.numpy()[:3], rtol=1e-6)


@pytest.mark.parametrize("called", [True, False])
def test_a_batch_of_one_is_called_for_each_image(tmp_path, called):
    features = None if called else "out"
    one = save(tmp_path / "m", "float32", "float32", (1, SIZE, SIZE, 3), called=called)
    backbone = etl.backbone(one, features=features)
    assert backbone.output_shape == (None, 4)
    np.testing.assert_allclose(features_of(backbone, IMAGES), IMAGES.mean((1, 2)) @ KERNEL, rtol=1e-5)
    with pytest.raises(UserError, match=r"m takes one example at a time: its dropout cannot be on; leave --b"):
        etl.tuning.make_plan(backbone.structure, etl.tuning.full(), backbone_dropout=True)
    if not called:
        return
    before, after = trained(backbone, tmp_path / "run")
    np.testing.assert_array_equal(before, KERNEL.astype("f"))
    assert np.all(before != after)
    same = etl.backbone(save(tmp_path / "any", "float32", "float32", called=called), features=features)
    np.testing.assert_allclose(after, trained(same, tmp_path / "same")[1], rtol=1e-4)


def test_a_batch_of_one_under_mirrored_strategy(tmp_path):
    backbone = etl.backbone(save(tmp_path / "m", "float32", "float32", (1, SIZE, SIZE, 3)))
    before, after = trained(
        backbone,
        tmp_path / "run",
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=V1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )
    assert np.all(before != after)


@SAVERS
@pytest.mark.parametrize("size", [1, 8])
def test_other_batches_are_refused(tmp_path, saver, size, pictures, capsys):
    path = saver(tmp_path / "m", "float32", "float32", (size, SIZE, SIZE, 3))
    if size == 1 and saver is save:
        return
    flags = [f"--backbone={path}", f"--train_data={pictures}", f"--model_dir={tmp_path / 'run'}", "--train_steps=1"]
    assert main(["train", *flags]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {path} takes batches of {size} only, and training, evaluation and serving need others; save it again "
        "with a batch of any size (None)."
    ]
    assert not (tmp_path / "run").exists()


CHANNELS_FIRST = (
    "{path} takes images of shape {shape}, with their channels first; they are fed as [batch, height, width, "
    "channels], so {remedy}."
)


@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize(
    ("saver", "remedy"),
    [
        (save, "save it again behind tf.transpose(images, [0, 3, 1, 2])"),
        (save_tf1, "export it again with its channels last"),
    ],
)
def test_channels_first_are_refused(tmp_path, saver, remedy, size):
    path = saver(tmp_path / "m", "float32", "float32", (None, 3, size, size))
    with pytest.raises(UserError) as refused:
        etl.backbone(path, image_size=SIZE)
    shape = (None, 3, size, size)
    assert str(refused.value) == CHANNELS_FIRST.format(path=path, shape=shape, remedy=remedy)


def test_a_keras_file_with_channels_first(tmp_path):
    images = keras.Input((3, SIZE, SIZE))
    model = keras.Model(images, keras.layers.Conv2D(4, 3)(keras.layers.Permute((2, 3, 1))(images)))
    path = str(tmp_path / "m.h5")
    model.save(path)
    with pytest.raises(UserError) as refused:
        etl.backbone(path)
    remedy = "save it again behind keras.layers.Permute((3, 1, 2))"
    assert str(refused.value) == CHANNELS_FIRST.format(path=path, shape=(None, 3, SIZE, SIZE), remedy=remedy)


def test_a_keras_file_with_a_fixed_batch(tmp_path):
    model = keras.Sequential(
        [
            keras.layers.Conv2D(4, 3, batch_input_shape=(1, SIZE, SIZE, 3), bias_initializer="ones"),
            keras.layers.Flatten(),
        ]
    )
    model.save(str(tmp_path / "m.h5"))
    expected = np.concatenate([model(image[np.newaxis]) for image in IMAGES])
    np.testing.assert_allclose(features_of(etl.backbone(str(tmp_path / "m.h5")), IMAGES), expected, rtol=1e-5)
