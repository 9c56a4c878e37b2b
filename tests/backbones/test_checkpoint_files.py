"""Checkpoints as sources: what is read from which file, under which names."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from tests import networks, runs
from tests.backbones.building import IMAGES
from tests.backbones.checkpoints import TOP, TRAINABLE, VALUES, assert_values, built, spec
from tests.checkpoints import checkpoint_values
from tests.contract.training import make_estimator
from tests.tiny import SIZE, Source, random_batches

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
    with pytest.raises(UserError, match="stem/conv1/kernel, most similar: none"):
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
