"""What a SavedModel's file says about it, against what TensorFlow finds once it has loaded the model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.saved_model import interface, loading
from estimator_tl.compat import keras, tf
from estimator_tl.errors import UserError
from tests.backbones.named_features import Endpoints
from tests.backbones.signed_modules import Called, Signed
from tests.tiny import SIZE, save_tiny_module, tiny_keras_model
from tests.tiny_encoder import save_encoder
from tests.tiny_text import save_sentence_encoder

PICTURES = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)


class Partly(tf.Module):
    """Says of its variables themselves whether they train; its functions share some of them."""

    def __init__(self):
        super().__init__()
        self.shared = tf.Variable([1.0, 2.0, 3.0], name="shared")
        self.parts = [tf.Variable(2.0, name="same"), tf.Variable([4], name="same", trainable=False, dtype=tf.int64)]
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1.0]), 0.0)

    @tf.function
    def __call__(self, pictures, scale=2.0, *, training: bool = False):
        found = tf.reduce_mean(pictures, [1, 2]) * self.shared * scale + self.table.lookup(tf.constant("a"))
        return (found * self.parts[0],) if training else [found * tf.cast(self.parts[1], tf.float32)]


def save_partly(folder):
    model = Partly()
    for training in (True, False):
        model.__call__.get_concrete_function(PICTURES, training=training)
    tf.saved_model.save(model, folder)


def save_tokens(folder):
    save_encoder(Path(folder).parent)
    Path(folder).parent.joinpath("encoder").rename(folder)


def save_endpoints(folder):
    model = Endpoints()
    for training in (False, True):
        for inner in (False, True):
            model.__call__.get_concrete_function(PICTURES, training=training, return_endpoints=inner)
    tf.saved_model.save(model, folder)


def save_signed(kind):
    def save(folder):
        model = kind()
        tf.saved_model.save(model, folder, signatures={"serving_default": model.serve, "embed": model.embed})

    return save


def save_mirrored(folder):
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = Signed()
    tf.saved_model.save(model, folder, signatures=model.serve)


def save_subclassed(folder):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)
            self.norm = keras.layers.BatchNormalization()

        def call(self, inputs, training=None):
            return self.norm(self.dense(tf.reduce_mean(inputs, [1, 2])), training=training)

    model = Subclassed()
    model(np.zeros([2, SIZE, SIZE, 3], np.float32))
    model.save(folder, save_format="tf")


MODELS = {
    "hub": save_tiny_module,
    "text": save_sentence_encoder,
    "tokens": save_tokens,
    "endpoints": save_endpoints,
    "signatures": save_signed(Signed),
    "called": save_signed(Called),
    "partly": save_partly,
    "mirrored": save_mirrored,
    "keras": lambda folder: tiny_keras_model().save(folder, save_format="tf"),
    "subclassed": save_subclassed,
}


def plain(found):
    """Returns an interface as lists and strings."""

    def variable(of):
        return of.name.removesuffix(":0"), of.shape.as_list(), of.dtype.name, of.trainable

    def function(of):
        return repr(of.inputs), repr(of.outputs), [variable(each) for each in of.variables]

    return {
        "functions": found.functions and [function(each) for each in found.functions],
        "arguments": list(found.arguments),
        "signatures": {name: function(each) for name, each in found.signatures.items()},
        "trainable": None if found.trainable is None else [variable(each) for each in found.trainable],
    }


@pytest.mark.parametrize("name", MODELS)
def test_the_file_says_what_the_model_does(name, tmp_path, monkeypatch):
    MODELS[name](str(tmp_path / name))
    loaded = plain(interface.of_model(tf.saved_model.load(str(tmp_path / name))))
    monkeypatch.setattr(loading, "load_eagerly", None)
    described = plain(loading.describe(str(tmp_path / name)))
    assert sum(len(f[2]) for f in described["functions"] or described["signatures"].values())
    assert described == loaded


def test_models_without_an_object_graph_are_loaded(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        pictures = tf.compat.v1.placeholder(tf.float32, [None, SIZE, SIZE, 3])
        kernel = tf.compat.v1.get_variable("kernel", [3, 4], use_resource=True)
        session.run(kernel.initializer)
        out = tf.matmul(tf.reduce_mean(pictures, [1, 2]), kernel)
        tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "v1"), {"pictures": pictures}, {"out": out})
    described = loading.describe(str(tmp_path / "v1"))
    assert list(described.signatures) == ["serving_default"]
    assert described.functions is None
    assert isinstance(described.signatures["serving_default"].outputs["out"], (tf.Tensor, tf.TensorSpec))


@pytest.fixture
def copied(hub_module, tmp_path):
    shutil.copytree(hub_module.handle, tmp_path / "m")
    return tmp_path / "m"


def test_values_that_are_cut_off_are_seen_before_a_run(copied):
    shard = next((copied / "variables").glob("*.data-*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole + b"\0")
    assert etl.backbone(str(copied)).structure.variables
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"not a loadable SavedModel .*hold {len(whole) // 2} bytes, of \d+ that"):
        etl.backbone(str(copied))
    shard.unlink()
    with pytest.raises(UserError, match="not a loadable SavedModel .*hold 0 bytes"):
        etl.backbone(str(copied))


def test_values_that_are_lost_are_seen_before_a_run(copied):
    shutil.rmtree(copied / "variables")
    with pytest.raises(UserError, match="not a loadable SavedModel"):
        etl.backbone(str(copied))


def test_a_model_that_is_spoilt_after_its_description_ends_in_one_line(copied):
    backbone = etl.backbone(str(copied))
    os.remove(copied / "variables" / "variables.index")
    model_fn = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3))
    with tf.Graph().as_default(), pytest.raises(UserError, match="m is not a loadable SavedModel"):
        model_fn(tf.zeros([2, SIZE, SIZE, 3]), None, "infer")
