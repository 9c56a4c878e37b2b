"""Checkpoints as sources: what is read from which file, what the network makes of it, and how bad ones are refused."""

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
from estimator_tl.compat import estimator, keras, tf
from estimator_tl.compat.checkpoints import assign
from estimator_tl.errors import UserError
from estimator_tl.registry import absolute_paths
from estimator_tl.structure import CallMode
from tests import networks, runs
from tests.backbones.test_backbones import IMAGES
from tests.contract.test_variables import HEAD, checkpoint_values, make_estimator, train_and_compare
from tests.tiny import SIZE, Source, random_batches

VALUES = networks.random_values(networks.v1_network, SIZE, seed=5)
TRAINABLE = frozenset(name for name in VALUES if "moving" not in name)
TOP = frozenset(name for name in TRAINABLE if name.startswith("top/"))


def spec(path, network="v1_network", **arguments):
    listed = "".join(f", {name}={value!r}" for name, value in arguments.items())
    place = network if ":" in network else f"tests.networks:{network}"
    return f"checkpoint({str(path)!r}, network={place!r}, image_size={SIZE}{listed})"


def assert_values(backbone, expected):
    values = backbone.values()
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value, err_msg=name)


def built(backbone, images=IMAGES, **mode):
    """Features, update ops' effects on the variables, and regularization losses of one call."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = backbone.build(tf.constant(images), CallMode(**mode))
        session.run(tf.compat.v1.global_variables_initializer())
        assign(session, made.variables, made.initial_values())
        features, losses = session.run([made.features, dict(made.regularization_losses)])
        session.run(list(made.updates))
        return features, session.run(dict(made.variables)), losses


# Kinds of files.


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shards", [1, 2])
def test_both_formats_in_one_file_and_in_shards(version, shards, tmp_path):
    path = networks.save_v1(tmp_path / "model.ckpt", VALUES, shards, version)
    data = [file for file in tmp_path.iterdir() if file.suffix not in (".meta", ".index")]
    assert len(data) == shards
    backbone = etl.backbone(spec(tmp_path / "model.ckpt"))
    assert_values(backbone, VALUES)
    for other in (path, *data):  # what TensorFlow calls it, and the names of its files
        again = etl.backbone(spec(other))
        assert_values(again, VALUES)
        assert again.digest() == backbone.digest()


def test_twins_of_replicas_are_ignored(tmp_path):
    twins = {f"{name}/replica_1": value + 1 for name, value in VALUES.items()}
    networks.save_v1(tmp_path / "model.ckpt", {**twins, **VALUES, "global_step": np.int64(7)})
    assert_values(etl.backbone(spec(tmp_path / "model.ckpt")), VALUES)
    networks.save_v1(tmp_path / "twins.ckpt", twins)
    with pytest.raises(UserError, match="stem/conv1/kernel, nearest there: none"):
        etl.backbone(spec(tmp_path / "twins.ckpt"))


def test_a_run_of_an_estimator_under_a_strategy(v1_checkpoint, tmp_path):
    """Its newest checkpoint, by the backbone's names; the copy of it too, without the file that lists them."""
    config = estimator.RunConfig(
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )
    model_fn = etl.make_model_fn(
        etl.backbone(v1_checkpoint.handle),
        etl.heads.classifier(n_classes=3),
        etl.tuning.full(),
        optimizer=etl.optimizers.sgd(0.1),
        batch_norm="train",
    )
    estimator.Estimator(model_fn, str(tmp_path / "run"), config).train(random_batches(SIZE), steps=2)
    trained = checkpoint_values(tmp_path / "run" / "model.ckpt-2")
    expected = {name: trained[name] for name in VALUES}
    assert all(not np.array_equal(expected[name], v1_checkpoint.values[name]) for name in VALUES)
    assert_values(etl.backbone(spec(tmp_path / "run")), expected)
    (tmp_path / "copy").mkdir()
    for file in (tmp_path / "run").glob("model.ckpt-2.*"):
        shutil.copy(file, tmp_path / "copy")
    assert_values(etl.backbone(spec(tmp_path / "copy")), expected)


def test_a_checkpoint_of_objects(tmp_path):
    """Read by the names that the variables had, and, where two had the same, by the way to the object."""
    objects = tf.train.Checkpoint(
        named=[tf.Variable(value, name=name) for name, value in VALUES.items() if "bn" in name],
        kernels={"one": tf.Variable(VALUES["stem/conv1/kernel"]), "two": tf.Variable(VALUES["top/conv2/kernel"])},
    )
    path = objects.save(str(tmp_path / "objects"))
    rename = {"stem/conv1/kernel": "kernels/one", "top/conv2/kernel": "kernels/two"}
    backbone = etl.backbone(spec(path, rename=rename))
    assert_values(backbone, VALUES)
    assert "an object-based checkpoint: 10 of 10 variables" in backbone.kind
    with pytest.raises(UserError, match="lacks 2 variables.*stem/conv1/kernel"):
        etl.backbone(spec(path))


def test_keras_weights(keras_checkpoint):
    backbone = etl.backbone(keras_checkpoint.handle)
    assert_values(backbone, keras_checkpoint.values)
    assert {v.name for v in backbone.structure.variables if v.trainable} == keras_checkpoint.trainable


def test_the_variables_of_a_saved_model(hub_module):
    rename = {"stem/bn": "stem/conv1_bn", "top/bn": "top/conv2_bn"}
    backbone = etl.backbone(spec(f"{hub_module.handle}/variables/variables", rename=rename))
    expected = {name: hub_module.values[name.replace("stem/bn", rename["stem/bn"]).replace("top/bn", rename["top/bn"])]
                for name in VALUES}  # fmt: skip
    assert_values(backbone, expected)


def test_digest_follows_files_and_code(tmp_path):
    code = tmp_path / "net.py"
    code.write_text("from tests.networks import v1_network as net\n")
    path = networks.save_v1(tmp_path / "model.ckpt", VALUES)
    first = etl.backbone(spec(path, f"{code}:net")).digest()
    assert etl.backbone(spec(path, f"{code}:net")).digest() == first
    code.write_text("from tests.networks import v1_network as net  # changed\n")
    second = etl.backbone(spec(path, f"{code}:net")).digest()
    changed = {**VALUES, "top/bn/beta": VALUES["top/bn/beta"] + 1}
    networks.save_v1(tmp_path / "model.ckpt", changed)
    assert len({first, second, etl.backbone(spec(path, f"{code}:net")).digest()}) == 3


# Names.


def test_scope_rename_and_moving_averages(tmp_path):
    kept = {f"net/{name}": value for name, value in VALUES.items() if "stem" in name}
    renamed = {name.replace("top/conv2", "old/last"): value for name, value in VALUES.items() if "stem" not in name}
    renamed["top/norm/gamma"] = renamed.pop("top/bn/gamma")
    averages = {"net/stem/conv1/kernel/ExponentialMovingAverage": VALUES["stem/conv1/kernel"] * 2}
    path = networks.save_v1(tmp_path / "model.ckpt", {**kept, **renamed, **averages})
    rename = {"top": "top", "top/conv2": "old/last", "top/bn/gamma": "top/norm/gamma"}
    backbone = etl.backbone(spec(path, scope="net", rename=rename))
    assert_values(backbone, {**VALUES, "stem/conv1/kernel": VALUES["stem/conv1/kernel"] * 2})
    assert backbone.kind.endswith("10 of 10 variables from it, 1 of them moving averages")
    assert_values(etl.backbone(spec(path, scope="net", rename=rename, ema=False)), VALUES)


def test_a_scope_of_the_network_that_the_checkpoint_lacks(tmp_path):
    path = networks.save_v1(tmp_path / "m.ckpt", {n.removeprefix("stem/"): v for n, v in VALUES.items()})
    assert_values(etl.backbone(spec(path, rename={"stem": ""})), VALUES)


def test_one_value_may_be_used_twice_and_initializers_may_share_a_tensor(tmp_path):
    values = {"a": np.float32([1, 2, 3]), "b": np.float32([4, 5, 6])}
    backbone = etl.backbone(spec(networks.save_v1(tmp_path / "m.ckpt", values), "late_network", pooling="none"))
    assert [v.name for v in backbone.structure.variables] == ["a", "b"]  # as the data meets them
    features, variables, _ = built(backbone)
    np.testing.assert_allclose(features, IMAGES * values["a"] + values["b"], rtol=1e-6)
    for name, value in values.items():
        np.testing.assert_array_equal(variables[name], value)


def test_excluded_variables_keep_their_initializers(tmp_path, capsys):
    values = {name: value for name, value in VALUES.items() if not name.startswith("top/")}
    path = networks.save_v1(tmp_path / "m.ckpt", {**values, "top/bn/beta": np.ones(9, np.float32)})
    source = Source(spec(path, exclude=["^top/conv2/", "^top/bn/"]), SIZE, values, TRAINABLE, {})
    make_estimator(source, "last_groups(2)", tmp_path / "run").train(random_batches(SIZE), steps=2)
    first, last = checkpoint_values(tmp_path / "run/model.ckpt-0"), checkpoint_values(tmp_path / "run/model.ckpt-2")
    for name, value in values.items():
        np.testing.assert_array_equal(first[name], value)
    for name, value in {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}.items():
        np.testing.assert_array_equal(first[f"top/bn/{name}"], np.full(6, value, np.float32))
    limit = np.sqrt(6 / (9 * 4 + 9 * 6))
    kernel = first["top/conv2/kernel"]
    assert 0.5 * limit < np.abs(kernel).max() <= limit  # Glorot's uniform initializer
    assert runs.moved(first, last, VALUES) == TOP


def test_mismatched_shapes_are_errors_or_skipped_by_name(tmp_path, caplog):
    path = networks.save_v1(tmp_path / "m.ckpt", {**VALUES, "top/bn/beta": np.ones(9, np.float32)})
    with pytest.raises(
        UserError,
        match=r"top/bn/beta has shape \(6,\) and type float32 in network .*v1_network, but top/bn/beta has "
        r"shape \(9,\) .*m.ckpt; correct the network, or leave such.*exclude=.*skip_mismatched=True",
    ):
        etl.backbone(spec(path))
    with caplog.at_level("WARNING", "absl"):
        backbone = etl.backbone(spec(path, skip_mismatched=True))
    assert [r.getMessage()[:32] for r in caplog.records] == ["skipped: top/bn/beta has shape ("]
    assert_values(backbone, {name: value for name, value in VALUES.items() if name != "top/bn/beta"})


def test_types_are_those_of_the_network(tmp_path):
    halves = {name: value.astype(np.float16) for name, value in VALUES.items()}
    path = networks.save_v1(tmp_path / "half.ckpt", halves)
    assert_values(etl.backbone(spec(path)), {name: value.astype(np.float32) for name, value in halves.items()})
    path = networks.save_v1(tmp_path / "int.ckpt", {**VALUES, "top/bn/beta": np.arange(6)})
    with pytest.raises(UserError, match="type float32 .* type int64"):
        etl.backbone(spec(path))


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


# What is refused.


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A prefix with a checkpoint of `v1_network`."""
    return networks.save_v1(tmp_path_factory.mktemp("good") / "model.ckpt", VALUES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "v1_net"}, "no function 'v1_net' in tests.networks; did you mean 'v1_network'"),
        ({"network": "tests.nets:a"}, "cannot be imported .*check PYTHONPATH, or write network='pkg.module:function'"),
        ({"network": "/no/such/file.py:a"}, "there is no file /no/such/file.py; check the path"),
        ({"network": "networks.py:"}, "names no function; write network='pkg.module:function' or"),
        ({"network": "without_training"}, "cannot be called as without_training.*training=False.*give it these"),
        ({"network": "failing_network"}, "fails in line [0-9]+ of .*networks.py: AttributeError: .*correct it there"),
        ({"network": "tuple_network"}, "returns tuple; return a tensor, or a dict of tensors by name"),
        ({"network": "variableless_network"}, "depends on no variable that the network makes; make them inside"),
        ({"network": "endpoints_network"}, "several endpoints; choose one with features=: .'maps', 'pooled', 'logits'"),
        ({"network": "endpoints_network", "features": "pool"}, "unknown endpoint .*'pool'; did you mean 'pooled'"),
        ({"features": "pooled"}, "returns one tensor, no endpoints; leave features=.'pooled'. out"),
        ({"network": "endpoints_network", "features": "logits"}, "lacks 2 variables.*classifier/kernel, nearest there"),
        ({"channels": 2}, "channels=2 .*must be 3, or 1 for grey pictures"),
        ({"pooling": "average"}, "unknown pooling 'average'"),
        ({"scope": 3}, "scope=3 is not a name; write e.g."),
        ({"rename": ["a"]}, "rename=.'a'. is not a map of names; write e.g."),
        ({"exclude": "("}, "exclude='.' is not a regex .*; write e.g."),
        ({"exclude": "^botom"}, "no variable of the network matches '.botom'"),
        ({"rename": {"stm": "a"}}, "no variable of the network begins with 'stm'"),
        ({"exclude": "."}, "nothing of network .* begins with a value of .*; exclude less"),
        ({"rename": {"top/bn": "top/norm"}}, r"top/bn/gamma \(sought as top/norm/gamma\), nearest there: top/bn/gamma"),
        ({"scop": "a"}, "no argument 'scop'; did you mean 'scope'"),
    ],
)
def test_bad_arguments(good, arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        etl.backbone(spec(good, **arguments))
    assert "\n" not in str(raised.value)


def test_no_size(good):
    with pytest.raises(UserError, match="say which with --image_size"):
        etl.backbone(f"checkpoint({good!r}, network='tests.networks:v1_network')")
    with pytest.raises(UserError, match="missing a required argument: 'network'; correct the arguments"):
        etl.backbone(f"checkpoint({good!r})")


def test_bad_files(good, tmp_path):
    cases = {
        tmp_path / "none": "no such file or folder; give a prefix such as",
        tmp_path: "holds no checkpoint; give the model_dir of a trained run",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            etl.backbone(spec(path))
    shutil.copy(f"{good}.data-00000-of-00001", tmp_path / "a.data-00000-of-00001")
    for path in (tmp_path / "a", tmp_path / "a.data-00000-of-00001"):
        with pytest.raises(UserError, match="a.index is missing; give a prefix such as"):
            etl.backbone(spec(path))
    (tmp_path / "text").write_text("no checkpoint " * 9)
    with pytest.raises(UserError, match="text is not a readable checkpoint .*; copy it again"):
        etl.backbone(spec(tmp_path / "text"))
    shutil.copy(f"{good}.index", tmp_path / "b.index")
    with pytest.raises(UserError, match="cannot be read from .*b .*; copy its files again"):
        etl.backbone(spec(tmp_path / "b")).values()
    shutil.copy(f"{good}.index", tmp_path / "a.index")
    with pytest.raises(UserError, match="holds several checkpoints and no list of them; give one of a, b with"):
        etl.backbone(spec(tmp_path))


def test_missing_variables_name_the_scope_that_finds_them(tmp_path):
    path = networks.save_v1(tmp_path / "m.ckpt", {f"resnet/v1/{name}": value for name, value in VALUES.items()})
    with pytest.raises(
        UserError,
        match="lacks 10 variables of network .*: stem/conv1/kernel, nearest there: resnet/v1/stem/conv1/kernel; .*"
        "and 7 more; give scope='resnet/v1', or leave such variables as they are initialized with exclude='regex'",
    ):
        etl.backbone(spec(path))
    path = networks.save_v1(
        tmp_path / "n.ckpt", {n.removeprefix("stem/").removeprefix("top/"): v for n, v in VALUES.items()}
    )
    with pytest.raises(UserError, match="name them with scope= or rename="):
        etl.backbone(spec(path))


def test_a_network_that_hides_its_updates(good, tmp_path):
    source = Source(spec(good, "silent_network"), SIZE, VALUES, TRAINABLE, {})
    assert train_and_compare(source, "full", tmp_path / "inference") == (TRAINABLE, HEAD)
    with pytest.raises(
        UserError, match="moves no batch-norm statistics when .* training=True; add their update ops to"
    ):
        train_and_compare(source, "full", tmp_path / "train", batch_norm="train")


def test_variables_that_change_their_names(good, tmp_path):
    code = tmp_path / "net.py"
    code.write_text(
        "from tests import networks\nimport tensorflow as tf\ncalls = []\n\n"
        "def net(inputs, training=False):\n"
        "    calls.append(1)\n"
        "    with tf.compat.v1.variable_scope('x' * (len(calls) - 1)):\n"
        "        return networks.v1_network(inputs, training)\n"
    )
    backbone = etl.backbone(spec(good, f"{code}:net"))
    with tf.Graph().as_default(), pytest.raises(UserError, match="other names in this graph: stem/conv1/kernel is not"):
        backbone.build(tf.constant(IMAGES), CallMode())


def test_layers_of_another_keras(good, tmp_path):
    others = {"keras", "tf_keras"} - {keras.layers.Layer.__module__.partition(".")[0]}
    other = pytest.importorskip(others.pop())
    code = tmp_path / "net.py"
    code.write_text(
        f"import {other.__name__} as other\n\n"
        "def net(inputs, training=False):\n    return other.layers.BatchNormalization()(inputs, training=training)\n"
    )
    with pytest.raises(
        UserError, match=f"package {other.__name__}, whose batch norm .* use the layers of estimator_tl.keras"
    ):
        etl.backbone(spec(good, f"{code}:net"))


def test_code_that_does_not_run(good, tmp_path):
    (tmp_path / "net.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(UserError, match="net.py cannot be run .ModuleNotFoundError.*; correct it"):
        etl.backbone(spec(good, f"{tmp_path}/net.py:net"))


def test_partial_tuning_with_training_batch_norm_is_refused(v1_checkpoint):
    structure = etl.backbone(v1_checkpoint.handle).structure
    with pytest.raises(UserError, match="one training switch"):
        etl.tuning.make_plan(structure, etl.tuning.last_groups(2), batch_norm="train")
