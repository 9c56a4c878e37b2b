"""Sources whose call for inference writes to variables, or draws random numbers: seen in the file, before a run."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.saved_model import loading
from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from tests.backbones.named_features import features_of
from tests.backbones.traced_modules import IMAGES, save_traces
from tests.tiny import SIZE
from tests.tiny_tf1 import HUB_FORMAT_V3

V1 = tf.compat.v1
WRITES = (
    "{path} writes to {name} each time it is called for inference, so its answers change from call to call and no part "
    "of it would stay frozen; {remedy}."
)
AGAIN = "export it again for inference, without augmentation and with batch norm in inference mode"
DRAWS = (
    "{path} draws random numbers when it is called for inference ({kinds}): its answers differ from call to call, in "
    "evaluation, prediction and exports too."
)


class Colours(tf.Module):
    """Mean colours times a matrix, after something that is done in each call."""

    def __init__(self, act):
        super().__init__()
        self.kernel = tf.Variable(np.random.RandomState(0).randn(3, 4).astype("f"), name="kernel")
        self.state = tf.Variable([1, 2], dtype=tf.int32, trainable=False, name="seeds/state")
        self.mean = tf.Variable(tf.zeros([3]), trainable=False, name="bn/moving_mean")
        self.generator = tf.random.Generator.from_seed(1)
        self._act = act

    @tf.function(input_signature=[IMAGES])
    def __call__(self, images):
        colours = self._act(self, tf.reduce_mean(images, [1, 2]))
        return tf.matmul(colours, self.kernel) + tf.cast(self.state[0], tf.float32) + self.mean[0]

    @tf.function(input_signature=[IMAGES])
    def plainly(self, images):
        return {"out": tf.matmul(tf.reduce_mean(images, [1, 2]), self.kernel)}


def seeded(self, colours):
    """As the seed generators of Keras 3 do it."""
    noise = tf.random.stateless_uniform(tf.shape(colours), self.state)
    self.state.assign(self.state + 1)
    return colours + noise


def generated(self, colours):
    return colours + self.generator.uniform(tf.shape(colours))


def normalized(self, colours):
    mean = tf.reduce_mean(colours, 0)
    self.mean.assign(0.9 * self.mean + 0.1 * mean)
    return colours - mean


def deeply(self, colours):
    @tf.function
    def count(step):
        if tf.reduce_sum(colours) > 0:
            self.state.assign_add([step, step])
        return step

    for step in tf.range(2):
        count(step)
    return colours


def scattered(self, colours):
    self.state.scatter_nd_add([[0]], [1])
    return colours


def dropping(self, colours):
    return tf.nn.dropout(colours, 0.5)


def in_a_branch(self, colours):
    return tf.cond(tf.reduce_sum(colours) > 0, lambda: tf.random.shuffle(colours), lambda: colours)


def fixed(self, colours):
    return colours + tf.random.stateless_uniform(tf.shape(colours), [1, 2])


def aside(self, colours):
    tf.debugging.assert_less(tf.random.uniform([]), 2.0)
    return colours


def save(path, act, **signatures):
    model = Colours(act)
    tf.saved_model.save(model, str(path), {name: getattr(model, method) for name, method in signatures.items()})
    return str(path)


@pytest.mark.parametrize(
    ("act", "name"),
    [
        (seeded, "seeds/state"),
        (generated, "StateVar"),
        (normalized, "bn/moving_mean"),
        (deeply, "seeds/state"),
        (scattered, "seeds/state"),
    ],
)
def test_a_call_that_writes_is_refused_by_the_name_of_the_variable(tmp_path, monkeypatch, act, name):
    path = save(tmp_path / "m", act)
    monkeypatch.setattr(loading, "load_eagerly", None)  # the file says it
    with pytest.raises(UserError) as refused:
        etl.backbone(path)
    assert str(refused.value) == WRITES.format(path=path, name=name, remedy=AGAIN)


def test_the_command_ends_in_one_line_before_anything_is_written(tmp_path, pictures, capsys):
    path = save(tmp_path / "m", seeded)
    flags = [f"--backbone={path}", f"--train_data={pictures}", f"--model_dir={tmp_path / 'run'}", "--train_steps=1"]
    line = f"error: {WRITES.format(path=path, name='seeds/state', remedy=AGAIN)}"
    for command in (["train", *flags], ["inspect", flags[0]]):
        assert main(command) == 2
        assert capsys.readouterr().err.splitlines() == [line]
    assert not (tmp_path / "run").exists()


def test_another_way_to_call_the_model_is_offered(tmp_path):
    path = save(tmp_path / "m", seeded, serving_default="__call__", plain="plainly")
    with pytest.raises(UserError, match=r"stay frozen; use signature='plain', which does not\.$"):
        etl.backbone(path)
    features = features_of(etl.backbone(path, signature="plain"))
    np.testing.assert_array_equal(features, features_of(etl.backbone(path, signature="plain")))


def test_the_own_call_is_offered_in_place_of_a_signature(tmp_path):
    model = Colours(fixed)
    model.moving = tf.function(lambda images: {"out": normalized(model, tf.reduce_mean(images, [1, 2]))}, [IMAGES])
    tf.saved_model.save(model, str(tmp_path), model.moving)
    with pytest.raises(UserError, match=r"frozen; leave signature out for its own call, which does not\.$"):
        etl.backbone(str(tmp_path), signature="serving_default")


@pytest.mark.parametrize(("act", "kinds"), [(dropping, "RandomUniform"), (in_a_branch, "RandomShuffle")])
def test_answers_that_differ_are_said(tmp_path, caplog, capsys, act, kinds):
    path = save(tmp_path / "m", act)
    with caplog.at_level(logging.WARNING):
        backbone = etl.backbone(path, input_range=(0.0, 1.0))
    assert [record.getMessage() for record in caplog.records] == [DRAWS.format(path=path, kinds=kinds)]
    assert list(backbone.draws) == [kinds]
    assert main(["inspect", f"--backbone={path}", "--input_range=0,1"]) == 0
    assert f"random         {kinds}: answers differ from call to call" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("act", [fixed, aside])
def test_answers_that_do_not_differ_are_not_said_to(tmp_path, caplog, act):
    path = save(tmp_path / "m", act)
    with caplog.at_level(logging.WARNING):
        backbone = etl.backbone(path, input_range=(0.0, 1.0))
    assert not caplog.records
    assert not backbone.draws
    model = tf.saved_model.load(path)
    images = tf.ones([2, SIZE, SIZE, 3])
    np.testing.assert_array_equal(model(images), model(images))


@pytest.mark.skipif(not hasattr(tf.keras, "version"), reason="Keras 3 comes with TensorFlow from 2.16 on")
def test_an_export_of_keras_3(tmp_path):
    import keras

    layers = [keras.layers.RandomFlip(), keras.layers.RandomContrast(0.5), keras.layers.Conv2D(2, 3)]
    for name, first in (("augmented", 0), ("plain", 2)):
        images = keras.Input((SIZE, SIZE, 3))
        net = images
        for layer in layers[first:]:
            net = layer(net, training=True) if layer is not layers[2] else layer(net)
        keras.Model(images, net).export(str(tmp_path / name), verbose=False)
    with pytest.raises(UserError, match=r"augmented writes to seed_generator\w*/seed_generator_state and 1 more var"):
        etl.backbone(str(tmp_path / "augmented"))
    assert etl.backbone(str(tmp_path / "plain")).output_shape == (None, 6, 6, 2)


def save_v1(path, effect, hub=False):
    """Saves a graph of TensorFlow 1 whose features have an effect; as a module of Hub, or as an old Keras did it."""
    builder = V1.saved_model.builder.SavedModelBuilder(str(path))
    with tf.Graph().as_default(), V1.Session() as session:
        images = V1.placeholder(tf.float32, [None, SIZE, SIZE, 3], "images")
        kernel = V1.get_variable("kernel", [3, 4], initializer=V1.ones_initializer())
        out = effect(tf.matmul(tf.reduce_mean(images, [1, 2]), kernel))
        session.run(V1.global_variables_initializer())
        info = V1.saved_model.utils.build_tensor_info
        signature = V1.saved_model.signature_def_utils.build_signature_def(
            {"images": info(images)}, {"default": info(out)}
        )
        name = "default" if hub else "serving_default"
        builder.add_meta_graph_and_variables(session, [] if hub else ["serve"], {name: signature})
    builder.save()
    if hub:
        Path(path, "tfhub_module.pb").write_bytes(HUB_FORMAT_V3)
    return str(path)


def counting(out):
    calls = V1.get_variable("calls", [], initializer=V1.zeros_initializer(), trainable=False)
    with tf.control_dependencies([V1.assign_add(calls, 1.0)]):
        return tf.identity(out)


def counting_aside(out):
    counting(out)
    return out


def dropping_v1(out):
    return tf.nn.dropout(out, 0.5)


def never_dropping(out):
    """As Keras asked for its learning phase."""
    training = V1.placeholder_with_default(False, [], "keras_learning_phase")
    return V1.cond(training, lambda: tf.nn.dropout(out, 0.5), lambda: out + 1.0)


@pytest.fixture(params=[True, False], ids=["control flow 2", "control flow 1"])
def control_flow(request):
    before = V1.control_flow_v2_enabled()
    (V1.enable_control_flow_v2 if request.param else V1.disable_control_flow_v2)()
    yield
    (V1.enable_control_flow_v2 if before else V1.disable_control_flow_v2)()


@pytest.mark.parametrize("hub", [True, False])
def test_graphs_of_tensorflow_1(tmp_path, caplog, control_flow, hub):
    with pytest.raises(UserError, match="counting writes to calls each time it is called for inference"):
        etl.backbone(save_v1(tmp_path / "counting", counting, hub))
    with caplog.at_level(logging.WARNING, logger="absl"):
        aside = etl.backbone(save_v1(tmp_path / "aside", counting_aside, hub))
        never = etl.backbone(save_v1(tmp_path / "never", never_dropping, hub))
        assert not caplog.records
        dropping = etl.backbone(save_v1(tmp_path / "dropping", dropping_v1, hub))
    assert [list(backbone.draws) for backbone in (aside, never, dropping)] == [[], [], ["RandomUniform"]]
    assert "dropping draws random numbers when it is called for inference" in caplog.text
    np.testing.assert_array_equal(features_of(never), features_of(aside) + 1)


NETWORK = """
import tensorflow as tf

def counting(inputs, training=False):
    calls = tf.compat.v1.get_variable("calls", [], initializer=tf.compat.v1.zeros_initializer(), trainable=False)
    with tf.control_dependencies([calls.assign_add(1.0)]):
        return plain(inputs) * calls

def dropping(inputs, training=False):
    return tf.nn.dropout(plain(inputs), 0.5)

def plain(inputs, training=False):
    kernel = tf.compat.v1.get_variable("kernel", [3, 4])
    out = tf.matmul(tf.reduce_mean(inputs, [1, 2]), kernel)
    return tf.nn.dropout(out, 0.5) if training else out
"""


def test_networks_of_checkpoints(tmp_path, caplog):
    (tmp_path / "nets.py").write_text(NETWORK)
    with tf.Graph().as_default(), V1.Session() as session:
        kernel, calls = V1.get_variable("kernel", [3, 4]), V1.get_variable("calls", [])
        session.run([kernel.initializer, calls.initializer])
        V1.train.Saver().save(session, str(tmp_path / "model.ckpt"))

    def opened(name):
        network = f"{tmp_path / 'nets.py'}:{name}"
        return etl.backbone(f"checkpoint({str(tmp_path / 'model.ckpt')!r}, network={network!r}, image_size=8)")

    with pytest.raises(UserError, match="writes to calls each .* frozen; assign to variables only where training is T"):
        opened("counting")
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert not opened("plain").draws
        assert not caplog.records
        assert list(opened("dropping").draws) == ["RandomUniform"]
    assert "draws random numbers when it is called for inference (RandomUniform)" in caplog.text


def test_a_model_that_was_saved_for_training_only(tmp_path):
    path = save_traces(tmp_path / "m", True)
    with pytest.raises(UserError) as refused:
        etl.backbone(path)
    assert str(refused.value) == (
        f"{path} was saved for training only: it can be called with training=True only; save it with a trace for "
        "training=False, too."
    )


def test_a_model_that_was_saved_for_inference_only(tmp_path, pictures, capsys):
    path = save_traces(tmp_path / "m", False)
    flags = [f"--backbone={path}", f"--train_data={pictures}", f"--model_dir={tmp_path / 'run'}", "--train_steps=1"]
    flags += ["--tuning=full", "--batch_size=7"]
    for flag, message in (
        ("--batch_norm=train", "batch norm cannot move its statistics; use --batch_norm=inference."),
        ("--backbone_dropout", "its dropout cannot be on; leave --backbone_dropout out."),
    ):
        assert main(["train", *flags, flag]) == 2
        line = f"error: {path} was saved for inference, without a training switch: {message}"
        assert capsys.readouterr().err.splitlines() == [line]
    assert not (tmp_path / "run").exists()
    assert main(["train", *flags]) == 0
    assert "backbone dropout off" in capsys.readouterr().out
