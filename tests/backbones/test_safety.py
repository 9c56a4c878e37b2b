"""What is loaded: pinned content, Python code in Keras files, operations that reach beyond a SavedModel."""

from __future__ import annotations

import contextlib
import json
import zipfile

import h5py
import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.safety import dangerous_operations
from estimator_tl.cli.main import main
from estimator_tl.compat import keras, tf
from estimator_tl.errors import UserError
from tests.tiny import SIZE, tiny_keras_model


@pytest.mark.parametrize("source", ["hub_module", "keras_h5", "application", "text_module"], indirect=True)
def test_content_is_pinned(source):
    digest = etl.backbone(source.handle).digest()
    assert digest.startswith("sha256:")
    assert len(digest) == len("sha256:") + 64
    for pin in (digest, digest.removeprefix("sha256:")):
        assert etl.backbone(source.handle, sha256=pin).handle == source.handle
    with pytest.raises(UserError, match=f"has the digest {digest}, but --backbone_sha256 is 0000"):
        etl.backbone(source.handle, sha256="0" * 64)


def test_pinned_on_the_command_line(keras_h5, pictures, tmp_path, capsys):
    flags = [f"--backbone={keras_h5.handle}", f"--train_data={pictures}", f"--model_dir={tmp_path / 'run'}"]
    assert main(["train", *flags, "--train_steps=1", "--backbone_sha256=abc"]) == 2
    assert "--backbone_sha256" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    digest = etl.backbone(keras_h5.handle).digest()
    assert main(["train", *flags, "--train_steps=1", f"--backbone_sha256={digest}"]) == 0
    assert main(["train", *flags, "--train_steps=2"]) == 0  # the pin is no part of the model
    assert main(["inspect", f"--backbone={keras_h5.handle}"]) == 0
    assert f"digest         {digest}" in capsys.readouterr().out


@pytest.fixture(scope="module")
def lambdas(tmp_path_factory):
    """A model whose last layer is Python code, in each of Keras's formats."""
    root = tmp_path_factory.mktemp("lambda")
    inputs = keras.Input((SIZE, SIZE, 3))
    inner = keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.Lambda(lambda x: x * 2.0, name="double")])
    model = keras.Model(inputs, inner(inputs))
    model.save(str(root / "model.h5"))
    model.save(str(root / "model.keras"))
    model.save(str(root / "folder"), save_format="tf")
    return root, model


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "folder"])
def test_code_in_keras_models_is_refused_unless_allowed(lambdas, name, capsys):
    root, model = lambdas
    with pytest.raises(UserError, match=r"Python code in its Lambda layers \(double\).*--allow_unsafe"):
        etl.backbone(str(root / name))
    assert main(["inspect", f"--backbone={root / name}"]) == 2
    capsys.readouterr()
    assert main(["inspect", f"--backbone={root / name}", "--allow_unsafe_deserialization"]) == 0
    allowed = etl.backbone(str(root / name), allow_unsafe_deserialization=True)
    images = np.random.RandomState(0).rand(2, SIZE, SIZE, 3).astype(np.float32)
    expected = model(images).numpy().mean((1, 2))
    model_fn = etl.make_model_fn(allowed, etl.heads.classifier(n_classes=3))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        spec = model_fn(tf.constant(images), None, "infer")
        session.run(tf.compat.v1.global_variables_initializer())
        spec.scaffold.init_fn(session)
        np.testing.assert_allclose(session.run(spec.predictions["features"]), expected, rtol=1e-5)


EVIL = """
open({marker!r}, "w").close()
from estimator_tl.compat import keras

class Evil(keras.Model):
    pass
"""


def test_keras_does_not_import_what_a_file_names(keras_zip, tmp_path, monkeypatch):
    """Importing a module runs it."""
    marker, file = tmp_path / "imported", str(tmp_path / "model.keras")
    (tmp_path / "evil_module.py").write_text(EVIL.format(marker=str(marker)))
    monkeypatch.syspath_prepend(str(tmp_path))
    with zipfile.ZipFile(keras_zip.handle) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = json.dumps({**json.loads(content), "module": "evil_module", "class_name": "Evil"}).encode()
            new.writestr(name, content)
    with pytest.raises(UserError, match=r"needs Evil, which Keras does not have; say where the code is"):
        etl.backbone(file)
    assert not marker.exists()
    with contextlib.suppress(UserError):  # whatever comes of it
        etl.backbone(file, allow_unsafe_deserialization=True)
    assert marker.exists()


def test_functions_of_tensorflow_that_read_files(tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    outputs = keras.layers.Conv2D(2, 1)(tf.math.abs(inputs))
    keras.Model(inputs, outputs).save(str(tmp_path / "model.h5"))
    assert etl.backbone(str(tmp_path / "model.h5")).structure.layers
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        config = file.attrs["model_config"]
        assert '"math.abs"' in config
        file.attrs["model_config"] = config.replace('"math.abs"', '"io.read_file"')
    with pytest.raises(UserError, match=r"reads or writes files or runs code of its own \(io.read_file\)"):
        etl.backbone(str(tmp_path / "model.h5"))


def test_plain_keras_models_are_not_called_unsafe(keras_h5, keras_zip, keras_folder):
    for source in (keras_h5, keras_zip, keras_folder):
        assert etl.backbone(source.handle).structure.variables


class Reader(tf.Module):
    """Reads a file of the machine that it is loaded on."""

    def __init__(self, path):
        super().__init__()
        self.kernel = tf.Variable(np.ones((3, 2), np.float32), name="kernel")
        self.path = path

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)])
    def __call__(self, pictures):
        length = tf.strings.length(tf.io.read_file(self.path))
        return tf.matmul(tf.reduce_mean(pictures, [1, 2]), self.kernel) + tf.cast(length, tf.float32)


def test_saved_models_that_read_files_are_refused_unless_allowed(tmp_path, hub_module, text_module):
    secret = tmp_path / "secret.txt"
    secret.write_text("12345")
    tf.saved_model.save(Reader(str(secret)), str(tmp_path / "reader"))
    assert dangerous_operations(str(tmp_path / "reader")) == ["ReadFile"]
    with pytest.raises(UserError, match=r"reads or writes files or runs code of its own \(ReadFile\)"):
        etl.backbone(str(tmp_path / "reader"))
    assert etl.backbone(str(tmp_path / "reader"), allow_unsafe_deserialization=True).output_shape == (None, 2)
    for source in (hub_module, text_module):
        assert dangerous_operations(source.handle) == []


@pytest.mark.parametrize(("drop", "last"), [(1, "bn2"), (2, "conv2"), (4, "relu1")])
def test_the_top_is_dropped(keras_h5, drop, last):
    dropped = etl.backbone(f"keras_model({keras_h5.handle!r}, drop_top={drop})")
    assert dropped.structure.layers[-1] == last
    named = etl.backbone(f"keras_model({keras_h5.handle!r}, features={last!r})")
    assert named.structure.variables == dropped.structure.variables


def test_where_to_cut_is_said_once_and_in_range(keras_h5):
    for drop in (8, -1, 1.5, "1"):
        with pytest.raises(UserError, match="must leave some of its"):
            etl.backbone(f"keras_model({keras_h5.handle!r}, drop_top={drop!r})")
    with pytest.raises(UserError, match="both say where to cut"):
        etl.backbone(f"keras_model({keras_h5.handle!r}, drop_top=1, features='bn1')")


def test_what_a_newer_keras_exports_is_used_through_its_signature(tmp_path):
    """On TensorFlow 2.16 and later `tf.keras` is Keras 3, whose files Keras 2 cannot read."""
    inputs = tf.keras.Input((SIZE, SIZE, 3))
    net = tf.keras.layers.Conv2D(4, 3, name="conv")(inputs)
    model = tf.keras.Model(inputs, tf.keras.layers.GlobalAveragePooling2D()(net))
    model.export(str(tmp_path / "exported"))
    images = np.random.RandomState(0).rand(2, SIZE, SIZE, 3).astype(np.float32)
    expected = model(images).numpy()
    backbone = etl.backbone(str(tmp_path / "exported"))
    assert backbone.output_shape == (None, 4)
    assert sorted(v.shape for v in backbone.structure.variables) == [(3, 3, 3, 4), (4,)]
    model_fn = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        features = model_fn(tf.constant(images), None, "infer").predictions["features"]
        session.run(tf.compat.v1.global_variables_initializer())
        np.testing.assert_allclose(session.run(features), expected, rtol=1e-4, atol=1e-6)


def test_unfit_files_are_told_apart(tmp_path):
    tiny_keras_model().save(str(tmp_path / "whole.h5"))
    whole = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="may be truncated, copy it again"):
        etl.backbone(str(tmp_path / "cut.h5"))
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(UserError, match="notes.txt"):
        etl.backbone(str(tmp_path / "notes.txt"))
