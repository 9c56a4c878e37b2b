"""Which Keras the code of users sees: in the process of a command Keras 2; in programs what they chose."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from estimator_tl.cli.main import main
from estimator_tl.compat import keras, tf
from estimator_tl.compat.versions import has_native_estimator

V1 = tf.compat.v1
CODE = """
import tensorflow as tf
from tensorflow import keras

def layers(inputs, training=False):
    net = tf.compat.v1.layers.conv2d(inputs, 4, 3, name="conv")
    net = tf.compat.v1.layers.batch_normalization(net, training=training, name="bn")
    return tf.reduce_mean(keras.layers.ReLU()(net), [1, 2])

class Twice(keras.layers.Layer):
    def call(self, inputs):
        return 2.0 * inputs
"""
SEEN = """
import sys
import tensorflow as tf
import estimator_tl as etl

assert tf.keras.layers.Layer is etl.keras.layers.Layer, "tf.keras is not Keras 2"
if "tf_keras" in sys.modules:
    import keras
    assert keras.__version__.startswith("3."), "keras itself is another package"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "nets.py").write_text(CODE)
    (folder / "seen.py").write_text(SEEN)
    with tf.Graph().as_default(), V1.Session() as session:
        shapes = {"conv/kernel": (3, 3, 3, 4), "conv/bias": (4,)}
        shapes.update({f"bn/{name}": (4,) for name in ("gamma", "beta", "moving_mean", "moving_variance")})
        for name, shape in shapes.items():
            V1.get_variable(name, initializer=np.ones(shape, "f"))
        session.run(V1.global_variables_initializer())
        V1.train.Saver().save(session, str(folder / "model.ckpt"))
    return folder


def python(folder, *arguments, **environment):
    without = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**without, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


HANDLE = "checkpoint('model.ckpt', network='nets.py:layers', image_size=8)"


def test_a_command_shows_its_users_keras_2(folder):
    flags = [f"--backbone={HANDLE}", "--import_modules=seen", "--tuning=full", "--batch_norm=train"]
    done = python(folder, "-m", "estimator_tl", "inspect", *flags)
    assert done.returncode == 0, done.stderr
    assert "kind           network with a name-based checkpoint: 6 of 6 variables from it" in done.stdout.splitlines()


@pytest.mark.skipif(has_native_estimator(), reason="up to TensorFlow 2.15 tf.keras is Keras 2 everywhere")
def test_a_program_is_told_what_to_set(folder):
    keras.Sequential([keras.layers.Conv2D(2, 3, input_shape=(8, 8, 3))]).save(str(folder / "m.h5"))
    lines = [
        "import os, estimator_tl as etl, tensorflow as tf",
        "from estimator_tl.errors import UserError",
        f"for handle in ({HANDLE!r}, \"keras_model('m.h5', custom_objects='nets.py:Twice')\"):",
        "    try: etl.backbone(handle)",
        "    except UserError as error: print(error)",
        "print(tf.keras.layers.Layer is etl.keras.layers.Layer, 'TF_USE_LEGACY_KERAS' in os.environ)",
    ]
    done = python(folder, "-c", "\n".join(lines))
    remedy = (
        "set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported, or use the layers of estimator_tl.keras (Keras 2)."
    )
    assert done.stdout.splitlines() == [
        f"network nets.py:layers fails in line 6 of {folder / 'nets.py'}: AttributeError: `conv2d` is not available "
        f"with Keras 3.; {remedy}",
        f"custom_objects: Twice does not use the classes of Keras 2, as m.h5 does; {remedy}",
        "False False",
    ]


def test_a_command_that_a_program_calls_leaves_its_environment_alone(monkeypatch):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    assert main(["inspect", "--backbone=keras.MobileNet(alpha=0.25, weights=None, image_size=32)"]) == 0
    assert "TF_USE_LEGACY_KERAS" not in os.environ


def test_what_the_environment_says_of_keras_stays(folder):
    code = "import os; from estimator_tl.compat import keras2; keras2.let_tf_keras_be_keras2(); "
    code += "print(os.environ.get('TF_USE_LEGACY_KERAS'))"
    assert python(folder, "-c", code).stdout.split() == ["None" if has_native_estimator() else "1"]
    assert python(folder, "-c", code, TF_USE_LEGACY_KERAS="0").stdout.split() == ["0"]
