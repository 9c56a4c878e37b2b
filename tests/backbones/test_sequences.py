"""Outputs that hold a vector a token, [batch, tokens, depth], of every kind of source: pooled over the tokens."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import keras, tf
from estimator_tl.errors import UserError
from estimator_tl.structure import CallMode
from tests.tiny import SIZE
from tests.tiny_encoder import DEPTH, PIECES, save_encoder
from tests.tiny_tf1 import HUB_FORMAT_V3

V1 = tf.compat.v1
KERNEL = np.random.RandomState(0).randn(3, 5).astype(np.float32)
IMAGES = np.random.RandomState(1).rand(4, SIZE, SIZE, 3).astype(np.float32)
TOKENS = IMAGES.mean(2) @ KERNEL  # [4, 8, 5]
NETWORK = """
import tensorflow as tf

def rows(inputs, training=False):
    kernel = tf.compat.v1.get_variable("kernel", [3, 5])
    return tf.einsum("btc,cd->btd", tf.reduce_mean(inputs, 2), kernel)
"""


def save_module(folder):
    model = tf.Module()
    model.kernel = tf.Variable(KERNEL, name="kernel")
    spec = tf.TensorSpec([None, SIZE, SIZE, 3])
    model.__call__ = tf.function(lambda x: tf.einsum("btc,cd->btd", tf.reduce_mean(x, 2), model.kernel), [spec])
    tf.saved_model.save(model, str(folder / "module"))
    return str(folder / "module")


def save_v1_graph(folder, hub):
    with tf.Graph().as_default(), V1.Session() as session:
        images = V1.placeholder(tf.float32, [None, SIZE, SIZE, 3])
        kernel = V1.get_variable("kernel", initializer=KERNEL, use_resource=True)
        out = tf.einsum("btc,cd->btd", tf.reduce_mean(images, 2), kernel)
        session.run(kernel.initializer)
        if not hub:
            V1.train.Saver().save(session, str(folder / "model.ckpt"))
            return
        info = V1.saved_model.utils.build_tensor_info
        signature = V1.saved_model.signature_def_utils.build_signature_def(
            {"images": info(images)}, {"default": info(out)}
        )
        builder = V1.saved_model.builder.SavedModelBuilder(str(folder / "tf1"))
        builder.add_meta_graph_and_variables(session, [], {"default": signature})
        builder.save()
        (folder / "tf1" / "tfhub_module.pb").write_bytes(HUB_FORMAT_V3)


def save_tf1(folder):
    save_v1_graph(folder, hub=True)
    return str(folder / "tf1")


def save_checkpoint(folder):
    save_v1_graph(folder, hub=False)
    (folder / "nets.py").write_text(NETWORK)
    network = f"{folder / 'nets.py'}:rows"
    return f"checkpoint({str(folder / 'model.ckpt')!r}, network={network!r}, image_size={SIZE})"


def save_keras(folder):
    images = keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.AveragePooling2D((1, SIZE))(images)
    dense = keras.layers.Dense(5, use_bias=False)
    model = keras.Model(images, dense(keras.layers.Reshape((SIZE, 3))(pooled)))
    dense.set_weights([KERNEL])
    model.save(str(folder / "rows.h5"))
    return str(folder / "rows.h5")


SOURCES = pytest.mark.parametrize("save", [save_module, save_tf1, save_checkpoint, save_keras])


@SOURCES
def test_tokens_are_pooled(tmp_path, save):
    handle = save(tmp_path)
    for pooling, expected in (("avg", TOKENS.mean(1)), ("max", TOKENS.max(1)), ("flatten", TOKENS.reshape(4, -1))):
        backbone = etl.backbone(handle, pooling=pooling)
        assert backbone.feature_rank == 2
        assert backbone.output_shape == (None, 8, 5)
        np.testing.assert_allclose(_features(backbone), expected, rtol=1e-4, atol=1e-5)


def _features(backbone, inputs=IMAGES):
    with tf.Graph().as_default(), V1.Session() as session:
        built = backbone.build(tf.constant(inputs), CallMode())
        session.run([V1.global_variables_initializer(), V1.tables_initializer()])
        if built.initial_values:
            for name, value in built.initial_values().items():
                built.variables[name].load(value, session)
        return session.run(built.features)


def test_no_pooling_is_refused_for_a_classifier(tmp_path, pictures, capsys):
    path = save_module(tmp_path)
    flags = [f"--backbone={path}", f"--train_data={pictures}", f"--model_dir={tmp_path / 'run'}", "--train_steps=1"]
    assert main(["train", *flags, "--pooling=none"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: the classifier takes features [batch, depth], but the backbone gives rank 3; use --pooling=avg, max or "
        "flatten."
    ]
    assert not (tmp_path / "run").exists()


def test_a_number_of_tokens_that_is_not_known_cannot_be_flattened(tmp_path):
    model = tf.Module()
    model.kernel = tf.Variable(KERNEL, name="kernel")
    spec = tf.TensorSpec([None, None, SIZE, 3])
    model.__call__ = tf.function(lambda x: tf.einsum("btc,cd->btd", tf.reduce_mean(x, 2), model.kernel), [spec])
    path = str(tmp_path / "m")
    tf.saved_model.save(model, path)
    with pytest.raises(UserError) as refused:
        etl.backbone(path, image_size=SIZE, pooling="flatten")
    assert str(refused.value) == (
        f"pooling=flatten needs a known output size, but {path} gives (None, None, 5); use pooling avg or max."
    )


@pytest.mark.parametrize("pooling", ["avg", "max", "flatten"])
def test_an_encoder_of_text_pools_what_is_no_padding(tmp_path, pooling):
    values = save_encoder(tmp_path)["embeddings/word"]
    handle = f"text_encoder({str(tmp_path / 'encoder')!r}, vocab={str(tmp_path / 'vocab.txt')!r}, seq_length=6)"
    backbone = etl.backbone(handle, features="sequence_output", pooling=pooling)
    assert (backbone.output_shape, backbone.feature_rank) == ((None, 6, DEPTH), 2)
    vectors = values[[PIECES.index(piece) for piece in ("[CLS]", "the", "cat", "[SEP]", "[PAD]", "[PAD]")]]
    expected = {"avg": vectors[:4].mean(0), "max": vectors[:4].max(0), "flatten": vectors.ravel()}[pooling]
    np.testing.assert_allclose(_features(backbone, ["the cat"])[0], expected, rtol=1e-5)
