"""All Keras Applications get the values that their own preprocessing, in the network or beside it, leads from."""

from __future__ import annotations

import inspect
import sys

import numpy as np
import pytest

from estimator_tl.backbones.input.range import BYTES, SIGNED, UNIT, UnknownRangeError, find
from estimator_tl.backbones.keras import applications as keras_applications
from estimator_tl.backbones.keras.application_input import application_contract
from estimator_tl.cli.main import main
from estimator_tl.compat import keras, tf
from estimator_tl.errors import about
from estimator_tl.tf_internals.eager import run_eagerly_in_thread

SIZE = 96  # which every application takes
SHAPE = (1, SIZE, SIZE, 3)
PIXELS = np.random.RandomState(0).randint(0, 256, SHAPE).astype(np.float32)
OPTION = "include_preprocessing"
WITH_OPTION = [
    name
    for name in keras_applications.names()
    if OPTION in inspect.signature(getattr(keras.applications, name)).parameters
]


def one_of_each_family(names):
    """Parameters for all names, of which those after a family's first are long tests' alone."""
    families = [getattr(keras.applications, name).__module__ for name in names]
    is_first = [families.index(family) == number for number, family in enumerate(families)]
    return [pytest.param(name, marks=() if first else pytest.mark.full) for name, first in zip(names, is_first)]


class FirstWeights(Exception):
    """A network came to its first layer with weights, with this tensor."""


def first_layers(name, monkeypatch, **arguments):
    """What a network does before its first layer with weights, as a function of arrays; the rest is not built."""
    layer_class = keras.layers.Layer
    before = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Normalization, keras.layers.ZeroPadding2D)
    call = layer_class.__call__

    def stopping(self, *args, **kwargs):
        if isinstance(self, before):
            return call(self, *args, **kwargs)
        raise FirstWeights(args[0])

    def build():
        inputs = keras.Input(SHAPE[1:])
        with monkeypatch.context() as patched:
            patched.setattr(layer_class, "__call__", stopping)
            function = getattr(keras.applications, name)
            with pytest.raises(FirstWeights) as reached:
                function(include_top=False, weights=None, input_tensor=inputs, **arguments)
        model = keras.Model(inputs, reached.value.args[0])
        return lambda values: run_eagerly_in_thread(lambda: np.asarray(model(tf.constant(values, tf.float32))))

    return run_eagerly_in_thread(build)


def contract(name, input_range=None, **arguments):
    function = getattr(keras.applications, name)
    preprocess = keras_applications._preprocess(function)
    with about(f"keras.{name}"):
        return application_contract(function, preprocess, arguments, input_range, SHAPE)


@pytest.mark.parametrize("name", one_of_each_family(keras_applications.names()))
def test_every_application_gets_what_its_first_layers_lead_from(name, monkeypatch):
    layers = first_layers(name, monkeypatch)
    module = sys.modules[getattr(keras.applications, name).__module__]
    spec = contract(name)
    np.testing.assert_array_equal(spec.preprocess(PIXELS.copy()), module.preprocess_input(PIXELS.copy()))
    # Together, preprocessing and first layers lead from bytes to what networks are trained on.
    assert find(lambda image: layers(spec.preprocess(image.copy())), SHAPE).range == BYTES
    if spec.range is not None:
        low, high = spec.range
        np.testing.assert_allclose(spec.preprocess(PIXELS.copy()), PIXELS / 255 * (high - low) + low, atol=1e-4)
    assert contract(name, input_range=(0, 1)).range == UNIT


@pytest.mark.parametrize("name", [*one_of_each_family(WITH_OPTION), "EfficientNetV2S"])
def test_without_its_layers_a_network_gets_what_they_would_give(name, monkeypatch):
    whole, rest = first_layers(name, monkeypatch), first_layers(name, monkeypatch, include_preprocessing=False)
    spec = contract(name, include_preprocessing=False)
    np.testing.assert_allclose(rest(spec.preprocess(PIXELS)), whole(PIXELS), atol=2e-5)
    assert spec.range != BYTES
    assert contract(name, input_range=(-1, 1), include_preprocessing=False).range == SIGNED


def test_families_with_layers_to_leave_out():
    families = {getattr(keras.applications, name).__module__.rpartition(".")[2] for name in WITH_OPTION}
    assert families == {"convnext", "efficientnet_v2", "mobilenet_v3", "regnet", "resnet_rs"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MobileNetV3Small", "[-1, 1]"),
        ("RegNetX002", "[0, 1]"),
        ("EfficientNetV2S", "[-1, 0.992188]"),
        ("EfficientNetV2B0", "(x - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375] for x in [0, 255]"),
    ],
)
def test_range_text_without_the_layers(name, expected):
    assert contract(name, include_preprocessing=False).range_text == expected


def test_layers_that_are_not_known_are_asked_for(monkeypatch):
    monkeypatch.setattr("estimator_tl.backbones.keras.application_input.family", lambda function: "later")
    with pytest.raises(UnknownRangeError) as error:
        contract("MobileNetV3Small", include_preprocessing=False)
    assert str(error.value) == (
        "keras.MobileNetV3Small is without the layers that rescale its input, and their arithmetic is unknown; leave "
        "include_preprocessing=False out, or say which values it takes with --input_range, e.g. -1,1."
    )
    assert contract("MobileNetV3Small", (0, 1), include_preprocessing=False).range == UNIT


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            "",
            [
                "input          32x32x3, values [0, 255], as keras.applications.mobilenet_v3.preprocess_input gives",
                "rescales       x / 127.5 - 1 (layer rescaling), so it takes [0, 255]",
            ],
        ),
        (
            ", include_preprocessing=False",
            ["input          32x32x3, values [-1, 1]", "rescales       nothing before its first weights"],
        ),
        pytest.param(
            ", input_range=(0, 1)",
            [
                "input          32x32x3, values [0, 1]",
                "rescales       x / 127.5 - 1 (layer rescaling), as for values in [0, 255], but it is given [0, 1]",
            ],
            marks=pytest.mark.full,
        ),
    ],
)
def test_inspect_shows_an_application(arguments, lines, capsys):
    handle = f"keras.MobileNetV3Small(alpha=0.75, minimalistic=True, weights=None, image_size=32{arguments})"
    assert main(["inspect", f"--backbone={handle}"]) == 0
    assert capsys.readouterr().out.splitlines()[2:4] == lines


def test_a_range_that_is_its_own_is_its_own_preprocessing():
    """What a run stored gives the same images, bit for bit."""
    own = contract("MobileNet")
    assert own.range == SIGNED
    same = contract("MobileNet", own.range)
    assert same.range_text == own.range_text
    np.testing.assert_array_equal(same.preprocess(PIXELS.copy()), own.preprocess(PIXELS.copy()))
