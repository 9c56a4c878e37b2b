"""The recipes with Keras models, as commands and as programs: both train what they say, and the same."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.keras import applications as keras_applications
from estimator_tl.compat import keras
from tests import tiny
from tests.recipes.running import RECIPES, blocks, check, replaced, run_both

MOBILENET_V2, VGG16 = "keras.MobileNetV2(weights='imagenet')", "keras.VGG16(weights='imagenet')"


@dataclasses.dataclass(frozen=True)
class StandIn:
    """A small Keras model in place of a recipe's, with the truth about it from Keras itself."""

    handle: str
    model: object

    @property
    def values(self):
        return tiny.keras_values(self.model)

    def trainable(self, layers):
        """Names of the trainable variables of some layers, e.g. slice(-20, None)."""
        return {w.name.removesuffix(":0") for layer in self.model.layers[layers] for w in layer.trainable_weights}


def save(model, folder, seed):
    tiny.randomize(model, seed)
    model.save(str(folder / "standin.h5"))
    return StandIn(str(folder / "standin.h5"), model)


@pytest.fixture(scope="module")
def start_of_mobilenet_v2(tmp_path_factory):
    """The first 34 layers of MobileNetV2; the 10th and the 20th from their end have weights, within blocks."""
    whole = keras.applications.MobileNetV2(alpha=0.1, weights=None, include_top=False, input_shape=(32, 32, 3))
    model = keras.Model(whole.inputs, whole.get_layer("block_3_depthwise_relu").output)
    return save(model, tmp_path_factory.mktemp("mobilenet_v2"), seed=5)


@pytest.fixture(scope="module")
def narrow_vgg16(tmp_path_factory):
    """VGG16 with all its layers, each a sixteenth as wide; its output is 2 x 2 x 32."""
    config = keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 64, 3)).get_config()
    for layer in config["layers"]:
        if "filters" in layer["config"]:
            layer["config"]["filters"] //= 16
    return save(keras.Model.from_config(config), tmp_path_factory.mktemp("vgg16"), seed=8)


@pytest.fixture(scope="module")
def start_of_resnet50(tmp_path_factory):
    """ResNet50 up to its first block; its output is 8 x 8 x 256."""
    whole = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3))
    model = keras.Model(whole.inputs, whole.get_layer("conv2_block1_out").output)
    return save(model, tmp_path_factory.mktemp("resnet50"), seed=4)


@pytest.fixture(scope="module")
def own_model(tmp_path_factory):
    """Six convolutions with batch norm, and dropout; the 10th layer from its end is bn1."""
    net = inputs = keras.Input((16, 16, 3))
    for number in range(6):
        net = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name=f"conv{number}")(net)
        net = keras.layers.BatchNormalization(name=f"bn{number}")(net)
    net = keras.layers.Dropout(0.2, name="drop")(net)
    return save(keras.Model(inputs, net), tmp_path_factory.mktemp("own"), seed=6)


@pytest.mark.full
def test_a_head_on_resnet50(start_of_resnet50, pictures, tmp_path):
    stand_ins = {
        "keras.ResNet50(weights='imagenet')": start_of_resnet50.handle,
        "flowers": str(pictures),
        "steps=1000": "steps=2",
    }
    runs = run_both("A head on ResNet50", stand_ins, tmp_path, every=2)
    check(runs, start_of_resnet50, [(0, 2, 1e-3, set())], units=1024)
    for run in runs:
        assert run.values(0)["head/hidden_0/kernel"].shape == (256, 1024)


@pytest.mark.full
def test_last_layers_of_an_application(start_of_mobilenet_v2, pictures, tmp_path):
    source = start_of_mobilenet_v2
    stand_ins = {MOBILENET_V2: source.handle, "flowers": str(pictures), "steps=1000": "steps=2"}
    runs = run_both("The last 20 layers of MobileNetV2", stand_ins, tmp_path, every=2)
    last = source.trainable(slice(-20, None))
    assert 0 < len(last) < len(source.trainable(slice(None)))
    check(runs, source, [(0, 2, 1e-4, last)], units=512)


@pytest.mark.full
def test_last_layers_of_an_own_model(own_model, pictures, tmp_path):
    stand_ins = {"mine.h5": own_model.handle, "flowers": str(pictures), "steps=1000": "steps=2"}
    runs = run_both("The last 10 layers of your own .h5", stand_ins, tmp_path, every=2)
    last = own_model.trainable(slice(-10, None))
    assert {name.partition("/")[0] for name in last} == {
        "bn1",
        *(f"{kind}{n}" for kind in ("conv", "bn") for n in range(2, 6)),
    }
    check(runs, own_model, [(0, 2, 1e-5, last)], units=512)


def test_from_a_layer_of_vgg16(narrow_vgg16, pictures, tmp_path):
    stand_ins = {
        VGG16: narrow_vgg16.handle,
        "flowers": str(pictures),
        "steps=1000": "steps=2",
    }
    runs = run_both("VGG16 from layer 15 on", stand_ins, tmp_path, every=2)
    fifth = narrow_vgg16.trainable(slice(15, None))
    assert {name.partition("/")[0] for name in fifth} == {"block5_conv1", "block5_conv2", "block5_conv3"}
    check(runs, narrow_vgg16, [(0, 2, 1e-4, fifth)], units=256)
    for run in runs:
        assert run.values(0)["head/hidden_0/kernel"].shape == (2 * 2 * 32, 256)
    settings = runs[0].settings()
    assert (settings["backbone_dropout"], settings["batch_norm"]) == (False, "inference")


@pytest.mark.full
def test_two_stages(narrow_vgg16, pictures, tmp_path):
    stand_ins = {VGG16: narrow_vgg16.handle, "flowers": str(pictures), "until=1000": "until=2", "steps=2000": "steps=4"}
    runs = run_both("Any Keras Application in two stages", stand_ins, tmp_path, every=2)
    check(runs, narrow_vgg16, [(0, 2, 1e-3, set()), (2, 4, 1e-5, narrow_vgg16.trainable(slice(15, None)))], units=256)
    assert runs[0].head().dropout == 0.5


def test_the_applications_named_are_there():
    (named,) = re.findall(r"known for (.*?)\. Each", RECIPES, re.DOTALL)
    named = re.findall(r"[A-Z]\w+", named)
    assert len(named) == 17
    assert set(named) <= set(keras_applications.names())


@pytest.mark.parametrize(
    ("name", "low", "high"), [("VGG16", 0.475, 0.485), ("VGG19", 0.585, 0.595), ("MobileNet", 0.99, 1)]
)
def test_what_fifteen_layers_leave(name, low, high):
    structure = etl.backbone(f"keras.{name}(weights=None, image_size=32)").structure
    size = {variable.name: int(np.prod(variable.shape)) for variable in structure.variables if variable.trainable}
    share = sum(size[name] for name in etl.tuning.from_layer(15).select(structure)) / sum(size.values())
    assert low < share < high


@pytest.mark.parametrize(
    ("title", "function", "layers"),
    [
        ("The last 20 layers of MobileNetV2", "MobileNetV2", slice(-20, None)),
        ("VGG16 from layer 15 on", "VGG16", slice(15, None)),
    ],
)
def test_the_networks_themselves(title, function, layers):
    """The backbone and the policy of a command, on the network that it names, without its weights."""
    command, _ = blocks(title)
    handle, policy = (re.search(rf'--{flag}="(.*?)"', command)[1] for flag in ("backbone", "tuning"))
    source = etl.backbone(replaced(handle, {"'imagenet'": "None"}), image_size=32)
    network = getattr(keras.applications, function)(include_top=False, weights=None, input_shape=(32, 32, 3))
    expected = [w.name.removesuffix(":0") for layer in network.layers[layers] for w in layer.trainable_weights]
    assert set(etl.tuning.registry.make(policy).select(source.structure)) == set(expected)


@pytest.mark.full
def test_progressive_unfreezing(start_of_mobilenet_v2, pictures, tmp_path):
    source = start_of_mobilenet_v2
    examples = etl.inputs.image_folder(str(pictures), validation=0.2).examples("train")
    assert len(examples) <= 32  # so an epoch is one step
    stand_ins = {MOBILENET_V2: source.handle, "flowers": str(pictures)}
    steps = {"until=500": "until=5", "until=1000": "until=10", "steps=1500": "steps=15"}
    runs = run_both("Progressive unfreezing", stand_ins, tmp_path, every=5, command_only=steps)
    ten, twenty = source.trainable(slice(-10, None)), source.trainable(slice(-20, None))
    assert ten < twenty
    check(runs, source, [(0, 5, 1e-3, set()), (5, 10, 1e-5, ten), (10, 15, 1e-6, twenty)])


def test_a_decaying_rate(keras_h5, pictures, tmp_path):
    stand_ins = {MOBILENET_V2: keras_h5.handle, "flowers": str(pictures), "steps=5000": "steps=3"}
    runs = run_both("A decaying learning rate", stand_ins, tmp_path, every=3)
    check(runs, keras_h5, [(0, 3, [1e-3 * 0.9 ** (step / 1000) for step in range(3)], set())])
