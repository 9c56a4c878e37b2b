"""Every recipe of docs/RECIPES.md, as a command and as a program: both train what it says, and the same."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones import keras_applications
from estimator_tl.cli.main import main
from estimator_tl.compat import estimator, keras, tf
from tests import tiny

RECIPES = (Path(__file__).parent.parent / "docs" / "RECIPES.md").read_text()
LOGITS = frozenset({"head/logits/kernel", "head/logits/bias"})
HIDDEN = LOGITS | {"head/hidden_0/kernel", "head/hidden_0/bias"}


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
def own_model(tmp_path_factory):
    """Six convolutions with batch norm, and dropout; the 10th layer from its end is bn1."""
    net = inputs = keras.Input((16, 16, 3))
    for number in range(6):
        net = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name=f"conv{number}")(net)
        net = keras.layers.BatchNormalization(name=f"bn{number}")(net)
    net = keras.layers.Dropout(0.2, name="drop")(net)
    return save(keras.Model(inputs, net), tmp_path_factory.mktemp("own"), seed=6)


def blocks(title):
    """Returns the command and the program of a recipe."""
    (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", RECIPES, re.DOTALL | re.MULTILINE)
    (command,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return command, program


def replaced(text, stand_ins):
    for old, new in stand_ins.items():
        assert old in text
        text = text.replace(old, new)
    return text


class Run:
    """What a run left behind."""

    def __init__(self, folder):
        self.folder = folder

    def values(self, step):
        reader = tf.train.load_checkpoint(str(self.folder / f"model.ckpt-{step}"))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}

    def moved(self, first, last, source):
        """Returns the variables of backbone and head that differ in at least one bit."""
        before, after = self.values(first), self.values(last)
        weights = [name for name in before if name in source.values or re.match(r"head/\w+/(kernel|bias)$", name)]
        return {name for name in weights if before[name].tobytes() != after[name].tobytes()}

    def rates(self):
        """Returns the learning rate of each step."""
        found = []
        for path in self.folder.glob("events.out.tfevents*"):
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                found += [v.simple_value for v in event.summary.value if v.tag == "learning_rate"]
        return found


def run_both(title, stand_ins, folder, every, command_only=()):
    """Runs a recipe as command and as program, with checkpoints every so many steps; returns both runs.

    The program gets the command's seed, so that they can be compared.
    """
    command, program = blocks(title)
    (model_dir,) = set(re.findall(r"runs/\w+", command))
    command = replaced(command, {**stand_ins, **dict(command_only), model_dir: str(folder / "command")})
    name, *arguments = shlex.split(command.replace("\\\n", ""))
    assert name == "estimator-tl"
    assert main([*arguments, f"--save_checkpoints_steps={every}", "--save_summary_steps=1"]) == 0
    program = replaced(program, {**stand_ins, f'"{model_dir}"': f'"{folder / "program"}", config=CONFIG'})
    config = estimator.RunConfig(tf_random_seed=0, save_checkpoints_steps=every, save_summary_steps=1)
    exec(program, {"CONFIG": config})
    return Run(folder / "command"), Run(folder / "program")


def check(runs, source, phases, units=None):
    """Asserts what each phase moved, at which rates, and that the program ended where the command did.

    Args:
      runs: of `run_both`.
      source: the stand-in.
      phases: (first step, last step, rate, trained variables of the source) for each phase.
      units: of the head's hidden layer.
    """
    head = HIDDEN if units else LOGITS
    end = phases[-1][1]
    for run in runs:
        first = run.values(0)
        for name, value in source.values.items():
            np.testing.assert_array_equal(first[name], value, err_msg=f"step 0 of {name} is not the source")
        for start, stop, _, trained in phases:
            assert run.moved(start, stop, source) == trained | head
        expected = [rate for start, stop, rate, _ in phases for _ in range(start, stop)]
        assert run.rates() == pytest.approx(expected, rel=1e-6)
        if units:
            assert first["head/hidden_0/kernel"].shape[1] == units
    command, program = (run.values(end) for run in runs)
    assert set(command) == set(program)
    for name, value in command.items():
        np.testing.assert_allclose(program[name], value, rtol=1e-4, atol=1e-7, err_msg=name)


def head_of(run):
    """Returns the head that a command's run.json names."""
    return etl.heads.registry.make(json.loads((run.folder / "run.json").read_text())["settings"]["model"]["head"])


MOBILENET_V2, VGG16 = "keras.MobileNetV2(weights='imagenet')", "keras.VGG16(weights='imagenet')"


def test_last_layers_of_an_application(start_of_mobilenet_v2, pictures, tmp_path):
    source = start_of_mobilenet_v2
    stand_ins = {MOBILENET_V2: source.handle, "flowers": str(pictures), "steps=1000": "steps=2"}
    runs = run_both("The last 20 layers of MobileNetV2", stand_ins, tmp_path, every=2)
    last = source.trainable(slice(-20, None))
    assert 0 < len(last) < len(source.trainable(slice(None)))
    check(runs, source, [(0, 2, 1e-4, last)], units=512)


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
    settings = json.loads((runs[0].folder / "run.json").read_text())["settings"]["model"]
    assert (settings["backbone_dropout"], settings["batch_norm"]) == (False, "inference")


def test_two_stages(narrow_vgg16, pictures, tmp_path):
    stand_ins = {VGG16: narrow_vgg16.handle, "flowers": str(pictures), "until=1000": "until=2", "steps=2000": "steps=4"}
    runs = run_both("Any Keras Application in two stages", stand_ins, tmp_path, every=2)
    check(runs, narrow_vgg16, [(0, 2, 1e-3, set()), (2, 4, 1e-5, narrow_vgg16.trainable(slice(15, None)))], units=256)
    assert head_of(runs[0]).dropout == 0.5


def test_the_applications_named_are_there():
    (named,) = re.findall(r"told for (.*?)\. Each", RECIPES, re.DOTALL)
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
