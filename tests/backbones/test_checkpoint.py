"""Checkpoints as sources: what their network makes of them, and runs with them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import estimator, tf
from estimator_tl.registry import absolute_paths
from estimator_tl.structure import CallMode
from tests import networks, runs
from tests.backbones.building import IMAGES
from tests.backbones.checkpoints import TOP, TRAINABLE, VALUES, assert_values, built, spec
from tests.checkpoints import checkpoint_values
from tests.contract.training import HEAD, train_and_compare
from tests.tiny import SIZE, Source, random_batches

# The network.


def test_description_and_no_traces_of_it(v1_checkpoint):
    with tf.Graph().as_default() as graph:
        backbone = etl.backbone(v1_checkpoint.handle)
        assert graph.get_operations() == []
    structure = backbone.structure
    assert [v.name for v in structure.variables] == list(VALUES)
    assert {v.name: v.shape for v in structure.variables} == {n: v.shape for n, v in VALUES.items()}
    assert {v.name for v in structure.variables if v.trainable} == TRAINABLE
    assert structure.groups() == ["stem/conv1", "stem/bn", "top/conv2", "top/bn"]
    assert (structure.layers, structure.one_training_switch) == (None, True)
    assert backbone.output_shape == (None, SIZE, SIZE, 6)
    assert backbone.image_spec.shape == (SIZE, SIZE, 3)
    assert backbone.image_spec.range_text == "[0, 1]"


def normalized(images, kernel, padding, norm, values, statistics=None):
    net = tf.nn.conv2d(images, values[kernel], 1, padding).numpy()
    mean, variance = statistics or (values[f"{norm}/moving_mean"], values[f"{norm}/moving_variance"])
    scaled = (net - mean) / np.sqrt(variance + 1e-3) * values[f"{norm}/gamma"] + values[f"{norm}/beta"]
    return net, np.maximum(scaled, 0)


@pytest.fixture(scope="module")
def layers_checkpoint(tmp_path_factory):
    values = networks.random_values(networks.layers_network, SIZE, seed=7)
    path = networks.save_v1(tmp_path_factory.mktemp("layers") / "model.ckpt", values)
    return Source(spec(path, "layers_network"), SIZE, values, frozenset(n for n in values if "moving" not in n), {})


@pytest.mark.parametrize(
    ("name", "padding", "scopes"),
    [
        (
            "layers_checkpoint",
            "VALID",
            [("conv2d/kernel", "batch_normalization"), ("conv2d_1/kernel", "batch_normalization_1")],
        ),
        ("v1_checkpoint", "SAME", [("stem/conv1/kernel", "stem/bn"), ("top/conv2/kernel", "top/bn")]),
        ("keras_checkpoint", "VALID", [("conv1/kernel", "bn1"), ("conv2/kernel", "bn2")]),
    ],
)
def test_one_call_in_either_mode(name, padding, scopes, request):
    """Features, statistics and losses are those of the formula."""
    source = request.getfixturevalue(name)
    backbone = etl.backbone(source.handle)
    net = IMAGES
    for kernel, norm in scopes:
        net = normalized(net, kernel, padding, norm, source.values)[1]
    features, variables, losses = built(backbone)
    np.testing.assert_allclose(features, net.mean((1, 2)), rtol=1e-5, atol=1e-6)
    for variable, value in source.values.items():
        np.testing.assert_array_equal(variables[variable], value)
    np.testing.assert_allclose(losses[scopes[0][0]], 1e-3 * np.square(source.values[scopes[0][0]]).sum(), rtol=1e-5)
    assert len(losses) == 1
    _, variables, _ = built(backbone, training=True)
    before, _ = normalized(IMAGES, scopes[0][0], padding, scopes[0][1], source.values)
    expected = 0.9 * source.values[f"{scopes[0][1]}/moving_mean"] + 0.1 * before.mean((0, 1, 2))
    np.testing.assert_allclose(variables[f"{scopes[0][1]}/moving_mean"], expected, rtol=1e-5, atol=1e-6)
    moved = {n for n, v in source.values.items() if not np.array_equal(variables[n], v)}
    assert moved == {n for n in source.values if "moving" in n}


def test_a_keras_model_inside_the_network(tmp_path):
    """Its updates for the placeholder that it was made with do not count."""
    values = networks.random_values(networks.keras_model_network, SIZE, seed=2)
    backbone = etl.backbone(spec(networks.save_v1(tmp_path / "m.ckpt", values), "keras_model_network"))
    assert_values(backbone, values)
    _, variables, _ = built(backbone, training=True)
    moved = {n for n, v in values.items() if not np.array_equal(variables[n], v)}
    assert moved == {"bn1/moving_mean", "bn1/moving_variance"}


def test_an_endpoint_is_all_of_the_source(tmp_path):
    """What lies beyond it needs no value and has no part in the plan, in updates and in checkpoints."""
    path = networks.save_v1(tmp_path / "m.ckpt", VALUES)
    handle = spec(path, "endpoints_network", features="pooled")
    source = Source(handle, SIZE, VALUES, TRAINABLE, {"last_groups(2)": TOP})
    moved = train_and_compare(source, "full", tmp_path / "run", batch_norm="train")
    assert moved == (frozenset(VALUES), HEAD)
    assert not [name for name in checkpoint_values(tmp_path / "run/model.ckpt-2") if "classifier" in name]
    backbone = etl.backbone(handle)
    with tf.Graph().as_default() as graph:
        made = backbone.build(tf.constant(IMAGES), CallMode(training=True))
        assert len(made.updates) == len(graph.get_collection("update_ops")) == 4
        assert {v.op.name for v in tf.compat.v1.local_variables()} == {
            f"classifier/{name}"
            for name in ("kernel", "bias", "bn/gamma", "bn/beta", "bn/moving_mean", "bn/moving_variance")
        }
        assert {v.op.name for v in tf.compat.v1.trainable_variables()} == TRAINABLE
    assert [v.name for v in etl.backbone(spec(path, "default_network")).structure.variables] == list(VALUES)


@pytest.mark.parametrize("source", ["v1_checkpoint", "keras_checkpoint", "layers_checkpoint"], indirect=True)
def test_regularization_and_statistics_are_the_same_under_mirrored(source, tmp_path):
    """Two replicas with the same batch each do what one does."""
    states = []
    for devices in (1, 2):
        distributed = {
            "train_distribute": tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(2)]),
            "session_config": tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
        }
        config = estimator.RunConfig(tf_random_seed=1, **(distributed if devices == 2 else {}))
        model_fn = etl.make_model_fn(
            etl.backbone(source.handle),
            etl.heads.classifier(n_classes=3),
            etl.tuning.full(),
            optimizer=etl.optimizers.sgd(10.0),  # so that the losses' part is well above rounding
            batch_norm="train",
        )
        model_dir = tmp_path / str(devices)
        model = estimator.Estimator(model_fn, str(model_dir), config, params={})
        model.train(lambda: random_batches(SIZE)().take(1).repeat(), steps=1)
        states.append(checkpoint_values(model_dir / "model.ckpt-1"))
    for variable in (*source.values, *HEAD):
        one, two = (state[variable] for state in states)
        np.testing.assert_allclose(one, two, rtol=2e-4, atol=2e-5, err_msg=variable)


def test_statistics_under_mirrored_are_means_over_the_replicas(v1_checkpoint, tmp_path):
    """Each replica has a batch of its own; by themselves, its statistics would be those of that batch."""
    config = estimator.RunConfig(
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )
    backbone, head = etl.backbone(v1_checkpoint.handle), etl.heads.classifier(n_classes=3)
    model_fn = etl.make_model_fn(backbone, head, etl.tuning.full(), batch_norm="train")
    pictures = np.random.RandomState(2).rand(8, SIZE, SIZE, 3).astype(np.float32)
    pictures[4:] *= 3

    def input_fn():
        return tf.data.Dataset.from_tensor_slices((pictures, np.arange(8) % 3)).batch(4)

    estimator.Estimator(model_fn, str(tmp_path), config, params={}).train(input_fn, steps=1)
    activations = tf.nn.conv2d(pictures, VALUES["stem/conv1/kernel"], 1, "SAME").numpy()
    means = [activations[half].mean((0, 1, 2)) for half in (slice(4), slice(4, 8))]
    assert not np.allclose(*means, rtol=0.1)
    expected = 0.9 * VALUES["stem/bn/moving_mean"] + 0.1 * np.mean(means, 0)
    found = checkpoint_values(tmp_path / "model.ckpt-1")["stem/bn/moving_mean"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_frozen_leaves_no_update_in_the_graph(v1_checkpoint):
    backbone = etl.backbone(v1_checkpoint.handle)
    with tf.Graph().as_default() as graph:
        backbone.build(tf.constant(IMAGES), CallMode())
        assert graph.get_collection("update_ops") == []
        with tf.compat.v1.variable_scope("model"):
            inner = backbone.build(tf.constant(IMAGES), CallMode()).variables
        assert {name: v.op.name for name, v in inner.items()} == {name: f"model/{name}" for name in VALUES}


def test_dropout_alone_follows_the_switch(tmp_path):
    values = {"stem/conv1/kernel": VALUES["stem/conv1/kernel"]}
    backbone = etl.backbone(spec(networks.save_v1(tmp_path / "m.ckpt", values), "dropout_network"))
    still, dropped = built(backbone)[0], built(backbone, training=True)[0]
    assert not np.allclose(still, dropped)
    assert etl.tuning.make_plan(backbone.structure, etl.tuning.full()).training_switch


PROGRAM_WITHOUT_V2_BEHAVIOR = """
import sys
import numpy as np
import tensorflow as tf
tf.compat.v1.disable_v2_behavior()
import estimator_tl as etl
handle, model_dir = sys.argv[1:]
head = etl.heads.classifier(n_classes=3)
model_fn = etl.make_model_fn(etl.backbone(handle), head, etl.tuning.full(), batch_norm="train")
images, labels = np.random.RandomState(0).rand(8, 8, 8, 3).astype('f'), np.arange(8) % 3

def input_fn():
    data = tf.data.Dataset.from_tensors((images, labels)).repeat()
    return tf.compat.v1.data.make_one_shot_iterator(data).get_next()

etl.estimator.Estimator(model_fn, model_dir, params={}).train(input_fn, steps=2)
"""


def test_a_program_without_v2_behavior(v1_checkpoint, tmp_path):
    """There variables are not resources."""
    command = [sys.executable, "-c", PROGRAM_WITHOUT_V2_BEHAVIOR, v1_checkpoint.handle, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, last = (checkpoint_values(tmp_path / f"model.ckpt-{step}") for step in (0, 2))
    for name, value in VALUES.items():
        np.testing.assert_array_equal(first[name], value)
    assert runs.moved(first, last, VALUES) == set(VALUES)


# A run.


def test_commands(tmp_path, pictures, monkeypatch, capsys):
    """Train with relative paths, use the run from elsewhere."""
    work, model_dir = tmp_path / "work", tmp_path / "run"
    work.mkdir()
    (work / "pooled").touch()  # a file with the name of an endpoint
    networks.save_v1(work / "model.ckpt", {n: v for n, v in VALUES.items() if n != "top/bn/beta"})
    (work / "net.py").write_text(
        "import neighbour\n\n"
        "def net(inputs, training=False):\n    return neighbour.endpoints_network(inputs, training)\n"
    )
    shutil.copy(Path(networks.__file__), work / "neighbour.py")
    monkeypatch.chdir(work)
    handle = spec("model.ckpt", "net.py:net", features="pooled", exclude="^top/bn/beta$")
    source = Source(handle, SIZE, VALUES, TRAINABLE, {})
    runs.train(model_dir, source, pictures, 2, "--tuning=last_groups(2)", "--validation_fraction=0.2")
    monkeypatch.chdir(tmp_path)
    (saved,) = [json.loads((model_dir / "run.json").read_text())["settings"]["model"]["backbone"]]
    assert saved == (
        f"checkpoint('{work}/model.ckpt', network='{work}/net.py:net', image_size=8, features='pooled', "
        "exclude='^top/bn/beta$')"
    )
    zero, _, last = runs.states(model_dir, 2)
    assert runs.moved(zero, last, VALUES) == TOP
    for name, value in VALUES.items():
        assert np.array_equal(zero[name], value) == (name != "top/bn/beta")
    capsys.readouterr()
    assert main(["evaluate", f"--model_dir={model_dir}"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["global_step"] == 2
    assert main(["predict", f"--model_dir={model_dir}", f"--input={pictures}/cat/*.png"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10
    assert main(["export", f"--model_dir={model_dir}", f"--export_dir={tmp_path / 'serving'}"]) == 0
    (version,) = (tmp_path / "serving").iterdir()
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    encoded = (pictures / "cat" / "000.png").read_bytes()
    np.testing.assert_allclose(served(image_bytes=tf.constant([encoded]))["probabilities"].numpy().sum(), 1, rtol=1e-5)
    capsys.readouterr()
    assert main(["inspect", f"--model_dir={model_dir}"]) == 0
    assert "the checkpoints agree with the plan" in capsys.readouterr().out


def test_paths_in_specs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model.ckpt-1.index", "old.ckpt-00000-of-00002", "net.py", "scope"):
        (tmp_path / name).touch()
    text = "checkpoint('model.ckpt-1', network='net.py:net', scope='scope', rename={'a': 'b'})"
    assert absolute_paths(text) == (
        f"checkpoint('{tmp_path}/model.ckpt-1', network='{tmp_path}/net.py:net', scope='scope', rename={{'a': 'b'}})"
    )
    assert absolute_paths("checkpoint('old.ckpt', network='a.b:c')") == (
        f"checkpoint('{tmp_path}/old.ckpt', network='a.b:c')"
    )
    assert absolute_paths("checkpoint('gs://a/b', network='net.py:c')") == (
        f"checkpoint('gs://a/b', network='{tmp_path}/net.py:c')"
    )
