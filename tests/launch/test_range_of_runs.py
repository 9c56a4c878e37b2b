"""Runs take the range that follows from their backbone, store it, and keep it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl import backbones
from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from estimator_tl.config import FIRST_RULES, ModelSpec
from estimator_tl.launch.run import session
from estimator_tl.tf_internals.eager import run_eagerly_in_thread
from tests import runs, tiny
from tests.backbones import rescaling_models as models
from tests.backbones.rescaling_models import functional
from tests.launch.first_runs import make_first, settings


def save(make, path):
    """Saves a model with known weights; returns it as a source."""

    def saved():
        model = make()
        tiny.randomize(model, 7)
        model.save(str(path))

    run_eagerly_in_thread(saved)
    return tiny.Source(str(path), models.SIZE, {}, frozenset(), {})


@pytest.fixture(scope="module")
def rescaling(tmp_path_factory):
    return save(lambda: functional(models.rescaling()), tmp_path_factory.mktemp("rescaling") / "m.h5")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return save(
        lambda: functional(models.LAYERS.Rescaling(3, offset=7, name="odd")), tmp_path_factory.mktemp("odd") / "m.h5"
    )


def evaluated(model_dir, capsys):
    capsys.readouterr()
    assert main(["evaluate", f"--model_dir={model_dir}", "--split=all"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_range_of_the_model_is_the_default(rescaling, pictures, tmp_path, capfd):
    runs.train(tmp_path / "default", rescaling, pictures, 2, "--tuning=full")
    assert (
        "images have values [0, 255]; the backbone itself does x / 127.5 - 1 (layer rescaling)\n"
        in capfd.readouterr().err
    )
    runs.train(tmp_path / "said", rescaling, pictures, 2, "--tuning=full", "--input_range=0,255")
    runs.train(tmp_path / "unit", rescaling, pictures, 2, "--tuning=full", "--input_range=0,1")
    assert [settings(tmp_path / name)["model"]["input_range"] for name in ("default", "said", "unit")] == [
        [0.0, 255.0],
        [0.0, 255.0],
        [0.0, 1.0],
    ]
    default, said, unit = (runs.states(tmp_path / name, 2)[2] for name in ("default", "said", "unit"))
    for name, value in said.items():
        np.testing.assert_array_equal(default[name], value, err_msg=name)
    assert not np.array_equal(default["conv1/kernel"], unit["conv1/kernel"])
    assert session.open_run(str(tmp_path / "unit")).backbone.image_spec.range == (0.0, 1.0)


def test_inspect_says_what_the_model_does(rescaling, keras_h5, capsys):
    def shown(*arguments):
        capsys.readouterr()
        assert main(["inspect", *arguments]) == 0
        return capsys.readouterr().out.splitlines()[2:4]

    does = "rescales       x / 127.5 - 1 (layer rescaling)"
    assert shown(f"--backbone={rescaling.handle}") == [
        "input          8x8x3, values [0, 255]",
        f"{does}, so it takes [0, 255]",
    ]
    assert shown(f"--backbone={rescaling.handle}", "--input_range=0,1") == [
        "input          8x8x3, values [0, 1]",
        f"{does}, as for values in [0, 255], but it is given [0, 1]",
    ]
    assert shown(f"--backbone={keras_h5.handle}") == [
        "input          8x8x3, values [0, 1]",
        "rescales       nothing before its first weights; [0, 1] is the default, see --input_range",
    ]
    assert shown(f"--backbone={keras_h5.handle}", "--input_range=-1,1")[1] == (
        "rescales       nothing before its first weights"
    )


@pytest.mark.parametrize("command", ["train", "inspect"])
def test_nothing_is_guessed(command, odd, pictures, tmp_path, capsys):
    run = [f"--train_data={pictures}", f"--model_dir={tmp_path / 'run'}"] if command == "train" else []
    assert main([command, f"--backbone={odd.handle}", *run]) == 2
    assert capsys.readouterr().err == (
        f"error: {odd.handle} changes its input before its first weights, and no range of images follows from that: "
        "x * 3 + 7 (layer odd); say which values it takes with "
        "--input_range, e.g. 0,255 or 0,1 or -1,1.\n"
    )
    assert not (tmp_path / "run").exists()
    assert main(["inspect", f"--backbone={odd.handle}", "--input_range=-1,1"]) == 0
    assert "rescales       x * 3 + 7 (layer odd)\n" in capsys.readouterr().out


def test_an_earlier_run_keeps_the_range_that_it_had(rescaling, pictures, tmp_path, capsys):
    """Its model rescales, which was not looked at when it began: its images went from 0 to 1."""
    runs.train(tmp_path, rescaling, pictures, 2, "--input_range=0,1")
    before = evaluated(tmp_path, capsys)
    make_first(tmp_path)
    assert evaluated(tmp_path, capsys) == before
    image = next(pictures.rglob("*.png"))
    assert main(["predict", f"--model_dir={tmp_path}", str(image)]) == 0
    predicted = json.loads(capsys.readouterr().out)
    assert main(["export", f"--model_dir={tmp_path}"]) == 0
    served = tf.saved_model.load(capsys.readouterr().out.splitlines()[-1]).signatures["serving_default"]
    probabilities = served(image_bytes=tf.constant([image.read_bytes()]))["probabilities"].numpy()[0]
    np.testing.assert_allclose(list(predicted["scores"].values()), probabilities, atol=2e-6)
    runs.train(tmp_path, rescaling, pictures, 3)
    assert settings(tmp_path)["model"]["input_range"] == [0.0, 1.0]
    assert session.open_run(str(tmp_path)).backbone.image_spec.range == (0.0, 1.0)


def test_an_earlier_run_without_preprocessing_layers_keeps_bytes():
    model = ModelSpec(
        "keras.MobileNetV3Small(alpha=0.75, minimalistic=True, weights=None, image_size=32, "
        "include_preprocessing=False)"
    )
    assert session.open_backbone(model, rules=FIRST_RULES).image_spec.range == (0.0, 255.0)
    assert session.open_backbone(model).image_spec.range == (-1.0, 1.0)


def test_sources_of_users_that_take_no_range(rescaling, pictures, tmp_path):
    @backbones.registry.register("wrapped")
    def wrapped(path):
        return etl.backbone(path)

    source = tiny.Source(f"wrapped({rescaling.handle!r})", models.SIZE, {}, frozenset(), {})
    runs.train(tmp_path, source, pictures, 1)
    assert settings(tmp_path)["model"]["input_range"] is None
    assert session.open_run(str(tmp_path)).backbone.image_spec.range == (0.0, 255.0)
    make_first(tmp_path)
    assert session.open_run(str(tmp_path)).backbone.image_spec.rules == 1
