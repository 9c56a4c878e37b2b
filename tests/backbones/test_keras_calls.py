"""Calls with a fixed `training` inside of a saved Keras model: the plan decides in their place, and says so."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import hub, keras
from estimator_tl.tuning.table import plan_table
from tests import tiny
from tests.backbones.building import IMAGES
from tests.backbones.keras_steps import in_full, one_step
from tests.backbones.keras_training import training_features

LAYERS = keras.layers
STATISTICS = {"bn/moving_mean", "bn/moving_variance"}
WEIGHTS = {"conv/kernel", "conv/bias", "bn/gamma", "bn/beta"}


def save(model, path):
    tiny.randomize(model, 11)
    model.save(str(path), **({} if path.suffix else {"save_format": "tf"}))
    return str(path), model


def model_of(function, name):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, function(inputs), name=name)


def base(rate=0.5):
    """A convolution, batch norm and dropout; dropout is left out where its rate is 0."""
    parts = [LAYERS.Conv2D(4, 3, name="conv"), LAYERS.BatchNormalization(name="bn")]
    return keras.Sequential([keras.Input((8, 8, 3)), *parts, *([LAYERS.Dropout(rate)] if rate else [])], name="base")


def guide(rate=0.5):
    """The structure of Keras's transfer learning guide, with a model around its base."""
    around = model_of(base(rate), "around")
    return model_of(lambda inputs: LAYERS.GlobalAveragePooling2D()(around(inputs, training=False)), "guide")


@pytest.fixture(scope="module", params=["guide.h5", *in_full("guide.keras", "guide")])
def saved_guide(request, tmp_path_factory):
    """A path, and what the model gives in inference and with batch statistics, without dropout."""
    path, model = save(guide(), tmp_path_factory.mktemp("calls") / request.param)
    inner = model.get_layer("around").get_layer("base")
    net = inner.get_layer("conv")(IMAGES).numpy()
    gamma, beta = (weight.numpy() for weight in inner.get_layer("bn").trainable_weights)
    net = (net - net.mean((0, 1, 2))) / np.sqrt(net.var((0, 1, 2)) + 1e-3) * gamma + beta
    return path, model(IMAGES, training=False).numpy(), net.mean((1, 2))


@pytest.mark.parametrize(("batch_norm", "expected"), [("inference", WEIGHTS), ("train", WEIGHTS | STATISTICS)])
def test_batch_norm_that_was_fixed_follows_the_plan(saved_guide, batch_norm, expected, tmp_path):
    _, moved = one_step(etl.backbone(saved_guide[0]), "full", tmp_path, batch_norm)
    assert moved == expected


def test_batch_statistics_are_those_of_the_batch(saved_guide):
    path, _, expected = saved_guide
    features, _ = training_features(etl.backbone(path), train_batch_norm=frozenset({"bn/gamma"}))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_that_was_fixed_follows_the_plan(saved_guide, dropout):
    first, second = training_features(etl.backbone(saved_guide[0]), dropout=dropout)
    assert np.array_equal(first, second) is not dropout
    assert np.allclose(first, saved_guide[1], rtol=1e-5, atol=1e-6) is not dropout


@pytest.mark.parametrize(("asked", "dropout"), [(None, False), (True, True), (False, False)])
def test_the_plan_says_what_was_fixed(saved_guide, asked, dropout):
    plan = etl.tuning.make_plan(etl.backbone(saved_guide[0]).structure, etl.tuning.full(), "train", asked)
    lines = [" ".join(line.split()) for line in plan_table(plan).splitlines()]
    assert lines == [
        f"tuning full, batch norm train, backbone dropout {'on' if dropout else 'off'}",
        "group state variables trained parameters batch norm",
        "conv train 2 112 112",
        "bn train 4 8 16 train",
        "note: around: saved as called with training=False; the plan above decides in its place",
        "trainable params: 120 || all params: 128 || trainable%: 93.7500",
    ]
    assert plan.call_mode(training=True).dropout is dropout


def test_run_and_audit_agree(saved_guide, pictures, tmp_path, capsys):
    flags = [f"--backbone={saved_guide[0]}", f"--train_data={pictures}", f"--model_dir={tmp_path / 'run'}"]
    assert main(["train", *flags, "--train_steps=2", "--tuning=full", "--batch_norm=train"]) == 0
    capsys.readouterr()
    assert main(["inspect", f"--model_dir={tmp_path / 'run'}"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "bn train 4 8 16 train" in lines
    assert [line.rpartition(" ")[2] for line in lines if line.startswith("bn 2 of 2")] == ["2"]
    assert lines[-1] == "the checkpoints agree with the plan"


@pytest.mark.parametrize(
    ("function", "batch_norm", "expected"),
    [(guide, "train (of no layer: nothing that is trained has any)", WEIGHTS), (base, "train", WEIGHTS | STATISTICS)],
)
def test_calls_that_a_saved_model_fixed_stay_so_and_the_plan_says_it(function, batch_norm, expected, tmp_path):
    """A SavedModel is its traced functions; what the one for training writes to is what moves."""
    path, _ = save(function(), tmp_path / "folder")
    backbone = etl.backbone(f"saved_model({path!r})")
    plan = etl.tuning.make_plan(backbone.structure, etl.tuning.full(), "train")
    assert plan_table(plan).startswith(f"tuning full, batch norm {batch_norm}, backbone dropout on\n")
    assert {v.name for v in backbone.structure.variables if plan.may_change(v)} == expected
    _, moved = one_step(backbone, "full", tmp_path / "run", "train")
    assert moved == expected


class AlwaysDrops(LAYERS.Dropout):
    """Monte Carlo dropout, as books write it."""

    def call(self, inputs):
        return super().call(inputs, training=True)


class NamedOtherwise(LAYERS.BatchNormalization):
    """Somebody's batch norm on top of Keras's."""


class Block(LAYERS.Layer):
    """A layer of a user that fixes what its own layers do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm, self.drop = LAYERS.BatchNormalization(name="bn"), LAYERS.Dropout(0.5)

    def call(self, inputs, training=None):
        return self.drop(self.norm(inputs, training=False), training)


def conv(inputs):
    return LAYERS.Conv2D(4, 3, name="conv")(inputs)


#: Each is random, or depends on the other images of a batch, wherever it is called.
ALWAYS = {
    "dropout": (lambda net: LAYERS.Dropout(0.5, name="last")(net, training=True), True),
    "spatial": (lambda net: LAYERS.SpatialDropout2D(0.5, name="last")(net, training=True), True),
    "noise": (lambda net: LAYERS.GaussianNoise(0.5, name="last")(net, training=True), True),
    "rotation": (lambda net: LAYERS.RandomRotation(0.3, name="last")(net, training=True), True),
    "batch norm": (lambda net: LAYERS.BatchNormalization(name="last")(net, training=True), True),
    "subclass": (lambda net: AlwaysDrops(0.5, name="last")(net), False),
}


@pytest.mark.parametrize("kind", ALWAYS)
def test_what_was_random_in_inference_is_not(kind, tmp_path):
    layer, is_told = ALWAYS[kind]
    path, model = save(model_of(lambda inputs: layer(conv(inputs)), "random"), tmp_path / "random.h5")
    net = model.get_layer("conv")(IMAGES)
    expected = net if kind == "subclass" else model.get_layer("last")(net, training=False)
    backbone = etl.backbone(path, custom_objects={"AlwaysDrops": AlwaysDrops}, pooling="flatten")
    first, second = training_features(backbone)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, expected.numpy().reshape(2, -1), rtol=1e-5, atol=1e-6)
    note = "last: saved as called with training=True; the plan above decides in its place"
    assert backbone.structure.notes == ((note,) if is_told else ())
    if kind != "batch norm":
        first, second = training_features(backbone, dropout=True)
        assert not np.array_equal(first, second)


def test_augmentation_inside_is_off_beside_batch_norm_in_training_mode(tmp_path):
    path, _ = save(model_of(lambda inputs: base(0)(LAYERS.RandomRotation(0.3)(inputs)), "augmented"), tmp_path / "a.h5")
    backbone = etl.backbone(path)
    assert backbone.is_random
    first, second = training_features(backbone, train_batch_norm=frozenset({"bn/gamma"}))
    np.testing.assert_array_equal(first, second)
    first, second = training_features(backbone, train_batch_norm=frozenset({"bn/gamma"}), dropout=True)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("batch_norm", "expected"), [("inference", set()), ("train", STATISTICS)])
@pytest.mark.parametrize("kind", ["class", "block"])
def test_code_of_users_follows_the_plan(kind, batch_norm, expected, tmp_path):
    layer = NamedOtherwise(name="bn") if kind == "class" else Block(name="block")
    path, _ = save(model_of(lambda inputs: layer(conv(inputs)), "own"), tmp_path / "own.h5")
    backbone = etl.backbone(path, custom_objects={"NamedOtherwise": NamedOtherwise, "Block": Block})
    _, moved = one_step(backbone, "full", tmp_path / "run", batch_norm)
    found = {name.removeprefix("block/") for name in moved}
    assert found == WEIGHTS | expected
    first, second = training_features(backbone, dropout=True)
    assert np.array_equal(first, second) is (kind == "class")


@pytest.mark.parametrize("batch_norm", [*in_full("inference"), "train"])
def test_a_saved_model_inside_keeps_its_statistics(hub_module, batch_norm, tmp_path):
    """Training mode would move them, which the plan does not know of."""
    inside = hub.KerasLayer(hub_module.handle, trainable=True, name="hub")
    path, _ = save(keras.Sequential([keras.Input((8, 8, 3)), inside, LAYERS.Dropout(0.5)]), tmp_path / "inside.h5")
    backbone = etl.backbone(path, custom_objects="tensorflow_hub:KerasLayer")
    _, moved = one_step(backbone, "full", tmp_path / "run", batch_norm)
    assert moved == hub_module.trainable
    table = plan_table(etl.tuning.make_plan(backbone.structure, etl.tuning.full(), batch_norm))
    said = "train (of no layer: nothing that is trained has any)" if batch_norm == "train" else "inference"
    assert f"tuning full, batch norm {said}, backbone dropout on\n" in table
    assert backbone.one_device == "holds a SavedModel in its layer hub, which each replica would load separately"
    assert "note: hub: called in inference mode throughout, as training mode writes to its variables\n" in table
