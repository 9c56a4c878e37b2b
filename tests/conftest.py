"""Fixtures shared by all tests; each worker process builds its own tiny backbones once."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from estimator_tl.compat import keras, quiet, tf
from tests import applications, networks, tiny, tiny_text, tiny_tf1

quiet.silence_deprecations()
tf.get_logger().setLevel("ERROR")
tf.config.threading.set_inter_op_parallelism_threads(2)
# TensorFlow starts here rather than inside the first graph, which would turn off soft placement, and with it
# MirroredStrategy on two CPU devices, for all tests of the process.
tf.config.list_logical_devices()


CONV2 = frozenset({"conv2/kernel", "bn2/gamma", "bn2/beta"})
KERAS_PARTIAL = {
    "last_layers(3)": CONV2,
    "from_layer('bn2')": frozenset({"bn2/gamma", "bn2/beta"}),
    "scopes('^conv1')": frozenset({"conv1/kernel"}),
}


def pytest_collection_finish(session):
    """Sets TensorFlow's own objects apart; looking through them for garbage would take a tenth of all tests' time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def hub_module(tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "tiny"
    values = tiny.save_tiny_module(path)
    trainable = frozenset(name for name in values if "moving" not in name)
    top = frozenset({"top/conv2/kernel", "top/conv2_bn/gamma", "top/conv2_bn/beta"})
    return tiny.Source(str(path), tiny.SIZE, values, trainable, {"last_groups(2)": top})


@pytest.fixture(scope="session")
def text_module(tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "sentences"
    values = tiny_text.save_sentence_encoder(path)
    return tiny.Source(str(path), 0, values, frozenset(values), {})


def _tf1_source(path, form):
    values = tiny_tf1.save_tf1_module(path, form=form)
    trainable = frozenset(name for name in values if "moving" not in name)
    top = frozenset(name for name in trainable if name.startswith("top/"))
    return tiny.Source(str(path), tiny.SIZE, values, trainable, {"last_groups(2)": top})


@pytest.fixture(scope="session")
def tf1_module(tmp_path_factory):
    return _tf1_source(tmp_path_factory.mktemp("tf1") / "tiny", tiny_tf1.Form())


@pytest.fixture(scope="session")
def tf1_references(tmp_path_factory):
    return _tf1_source(tmp_path_factory.mktemp("tf1") / "tiny", tiny_tf1.Form(resource=False, parts=2))


def _keras_source(handle, model):
    trainable = frozenset(w.name.removesuffix(":0") for w in model.trainable_weights)
    return tiny.Source(handle, tiny.SIZE, tiny.keras_values(model), trainable, KERAS_PARTIAL)


@pytest.fixture(scope="session")
def keras_h5(tmp_path_factory):
    model = tiny.tiny_keras_model(seed=1)
    path = tmp_path_factory.mktemp("keras") / "tiny.h5"
    model.save(str(path))
    return _keras_source(str(path), model)


@pytest.fixture(scope="session")
def keras_zip(tmp_path_factory):
    model = tiny.tiny_keras_model(seed=2)
    path = tmp_path_factory.mktemp("keras") / "tiny.keras"
    model.save(str(path))
    return _keras_source(str(path), model)


@pytest.fixture(scope="session")
def keras_folder(tmp_path_factory):
    model = tiny.tiny_keras_model(seed=3)
    path = tmp_path_factory.mktemp("keras") / "tiny"
    model.save(str(path), save_format="tf")
    return _keras_source(str(path), model)


@pytest.fixture(scope="session")
def application(tmp_path_factory):
    arguments = {"alpha": 0.25, "include_top": False, "weights": None, "input_shape": (32, 32, 3)}
    model = keras.applications.MobileNet(**arguments)
    tiny.randomize(model, 4)
    path = tmp_path_factory.mktemp("keras") / "mobilenet.h5"
    model.save_weights(str(path))
    last = frozenset(w.name.removesuffix(":0") for layer in model.layers[-5:] for w in layer.trainable_weights)
    trainable = frozenset(w.name.removesuffix(":0") for w in model.trainable_weights)
    handle = f"keras.MobileNet(alpha=0.25, weights={str(path)!r}, image_size=32)"
    return tiny.Source(handle, 32, tiny.keras_values(model), trainable, {"last_layers(5)": last})


# Of five families: up to which layer, as a graph of all variables of a deep one takes minutes in each cell of the
# contract (tests/contract/test_applications.py trains them whole), and how many of the last layers are a part of it.
APPLICATIONS = {
    "mobilenet_v2": ("MobileNetV2", "block_4_add", 12, {"alpha": 0.35}),
    "densenet": ("DenseNet121", "pool2_relu", 9, {}),
    "efficientnet": ("EfficientNetB0", "block2b_add", 15, {}),
    "resnet": ("ResNet50", "conv2_block3_out", 11, {}),
    "vgg": ("VGG16", None, 6, {}),
}


def _application(family):
    @pytest.fixture(scope="session")
    def make(tmp_path_factory):
        name, features, count, arguments = APPLICATIONS[family]
        path = tmp_path_factory.mktemp("applications") / f"{family}.h5"
        model = applications.save_random(name, path, 32, **arguments)
        if features:
            model = keras.Model(model.inputs, model.get_layer(features).output)
        arguments = {**arguments, "weights": str(path), "image_size": 32, "features": features}
        handle = f"keras.{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
        trainable = frozenset(w.name.removesuffix(":0") for w in model.trainable_weights)
        partial = {f"last_layers({count})": applications.last(model, count)}
        return tiny.Source(handle, 32, applications.values(model), trainable, partial)

    return make


mobilenet_v2, densenet, efficientnet, resnet, vgg = map(_application, APPLICATIONS)


@pytest.fixture(scope="session")
def v1_checkpoint(tmp_path_factory):
    values = networks.random_values(networks.v1_network, tiny.SIZE, seed=5)
    path = networks.save_v1(tmp_path_factory.mktemp("checkpoint") / "model.ckpt", values)
    trainable = frozenset(name for name in values if "moving" not in name)
    top = frozenset(name for name in trainable if name.startswith("top/"))
    handle = f"checkpoint({path!r}, network='tests.networks:v1_network', image_size={tiny.SIZE})"
    return tiny.Source(handle, tiny.SIZE, values, trainable, {"last_groups(2)": top})


@pytest.fixture(scope="session")
def keras_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "weights"
    values = networks.save_keras(path, seed=6)
    trainable = frozenset(name for name in values if "moving" not in name)
    handle = f"checkpoint({str(path)!r}, network='tests.networks:keras_network', image_size={tiny.SIZE})"
    return tiny.Source(handle, tiny.SIZE, values, trainable, {"last_groups(2)": CONV2})


@pytest.fixture
def source(request):
    """The source that the test's parameter names."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return tiny.write_pictures(tmp_path_factory.mktemp("pictures"))
