"""Sources that cannot be used: what is wrong with them, and what to do, in a line."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import keras
from estimator_tl.errors import UserError
from tests.backbones.building import build


def corrupt_zip(path, version):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", "{}")


def corrupt_h5(path, **attributes):
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("none.h5", lambda p: None, "does not exist"),
        ("k3.keras", lambda p: corrupt_zip(p, "3.4.1"), r"Keras 3\.4\.1.*model\.export"),
        ("k3.h5", lambda p: corrupt_h5(p, keras_version="3.1.0", model_config="{}"), r"Keras 3\.1\.0.*model\.export"),
        ("weights.h5", lambda p: corrupt_h5(p, keras_version="2.15.0"), "holds only weights.*keras.MobileNet"),
        ("text.h5", lambda p: p.write_text("hello"), "not a readable HDF5 file"),
        ("text.keras", lambda p: p.write_text("hello"), "not a readable HDF5 file|not a Keras model"),
        ("broken.keras", lambda p: corrupt_zip(p, "2.15.0"), "cannot be loaded as a Keras 2 model"),
        ("folder", lambda p: p.mkdir(), "holds no saved_model.pb"),
        ("missing/folder", lambda p: None, "no such file or folder"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path, name, make, message):
    path = tmp_path / name
    make(path)
    with pytest.raises(UserError, match=message):
        etl.backbone(str(path))


def test_truncated_h5(keras_h5, tmp_path):
    whole = Path(keras_h5.handle).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="truncated"):
        etl.backbone(str(tmp_path / "cut.h5"))


def test_damaged_saved_model(hub_module, tmp_path):
    shutil.copytree(hub_module.handle, tmp_path / "m")
    (tmp_path / "m" / "saved_model.pb").write_bytes(b"not a protocol buffer")
    (tmp_path / "m" / "fingerprint.pb").unlink(missing_ok=True)
    with pytest.raises(UserError, match="not a loadable SavedModel"):
        etl.backbone(str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        ("keras.MobileNetV9", "unknown Keras application 'MobileNetV9'; did you mean 'MobileNetV"),
        ("keras.MobileNet(alhpa=0.5)", "did you mean 'alpha'"),
        ("keras.MobileNet(weights='/nowhere/w.h5')", "does not exist"),
        ("keras.MobileNet(include_top=True, weights=None)", "include_top"),
        ("keras.MobileNet(alpha=0.3, weights='imagenet')", "alpha"),
        ("MobileNetV2", "did you mean 'keras.MobileNetV2'"),
        ("saved_modle('x')", "did you mean 'saved_model'"),
        ("http://tfhub.dev/x/1", "use https"),
    ],
)
def test_bad_names_are_answered_with_the_nearest(handle, message):
    with pytest.raises(UserError, match=message):
        etl.backbone(handle)


def test_weights_of_another_network(application):
    path = application.handle.split("weights='")[1].split("'")[0]
    with pytest.raises(UserError, match="do not fit"):
        etl.backbone(f"keras.VGG16(weights={path!r}, image_size=32)")


def test_fixed_size_cannot_be_changed(hub_module):
    with pytest.raises(UserError, match="height 8 only.*--image_size asks for 16"):
        etl.backbone(hub_module.handle, image_size=16)


def test_unknown_size_must_be_given(tmp_path):
    model = keras.Sequential([keras.layers.Conv2D(2, 3, input_shape=(None, None, 3))])
    model.save(str(tmp_path / "any.h5"))
    with pytest.raises(UserError, match="any size; say which with --image_size"):
        etl.backbone(str(tmp_path / "any.h5"))
    assert etl.backbone(str(tmp_path / "any.h5"), image_size=20).image_spec.shape == (20, 20, 3)


def test_not_an_image_model(tmp_path):
    keras.Sequential([keras.layers.Dense(2, input_shape=(5,))]).save(str(tmp_path / "d.h5"))
    with pytest.raises(UserError, match="not a batch of images"):
        etl.backbone(str(tmp_path / "d.h5"))


def test_wrong_pictures_are_named(hub_module):
    backbone = etl.backbone(hub_module.handle)
    with pytest.raises(UserError, match=r"shape \(None, 8, 8, 3\).*gives \(2, 9, 9, 3\)"):
        build(backbone, np.zeros([2, 9, 9, 3], np.float32))


@pytest.mark.parametrize(
    ("handle", "given", "message"),
    [
        ("keras_model('{h5}', drop_tp=1)", {}, "keras_model has no argument 'drop_tp'; did you mean 'drop_top'"),
        ("keras_model('{h5}')", {"drop_tp": 1}, "keras_model has no argument 'drop_tp'; did you mean 'drop_top'"),
        ("{h5}", {"drop_tp": 1}, "keras_model has no argument 'drop_tp'; did you mean 'drop_top'"),
        ("{folder}", {"drop_tp": 1}, "keras_model has no argument 'drop_tp'; did you mean 'drop_top'"),
        ("keras_model('{h5}', '{h5}', 1, 2, 3, 4, 5, 6, 7)", {}, "too many positional arguments; correct"),
        ("saved_model('{hub}', poling='max')", {}, "saved_model has no argument 'poling'; did you mean 'pooling'"),
        ("{hub}", {"poling": "max"}, "saved_model has no argument 'poling'; did you mean 'pooling'"),
        ("{hub}", {"drop_top": 1}, "saved_model has no argument 'drop_top'; "),
        ("{tf1}", {"poling": "max"}, "saved_model has no argument 'poling'; did you mean 'pooling'"),
        ("tf1_hub('{tf1}', poling='max')", {}, "tf1_hub has no argument 'poling'; did you mean 'pooling'"),
        ("text_encoder('{hub}', vocb='v.txt')", {}, "text_encoder has no argument 'vocb'; did you mean 'vocab'?"),
        ("checkpoint('c', netwrk='n.py:f')", {}, "checkpoint has no argument 'netwrk'; did you mean 'network'?"),
        ("keras.MobileNet(alpa=1.0)", {}, "MobileNet has no argument 'alpa'; did you mean 'alpha'?"),
        ("keras.MobileNet(weights=None)", {"poling": "max"}, "MobileNet has no argument 'poling'; did you mean"),
        ("keras.MobileNet(weights=None)", {"drop_top": 1}, "MobileNet has no argument 'drop_top'; "),
        ("{h5}", {"image_size": "8"}, "image_size='8' must be a number of pixels"),
        ("keras_model('{h5}', image_size=(8, 8, 3))", {}, "image_size=(8, 8, 3) must be a number of pixels"),
        ("keras.MobileNet(weights=None, image_size=0)", {}, "image_size=0 must be a number of pixels"),
        ("saved_model('{hub}', input_range=255)", {}, "input_range=255 must be (low, high), two numbers."),
    ],
)  # fmt: skip
def test_wrong_arguments_of_every_source(
    handle, given, message, keras_h5, keras_folder, hub_module, tf1_module, capsys
):
    places = {"h5": keras_h5, "folder": keras_folder, "hub": hub_module, "tf1": tf1_module}
    handle = handle.format(**{name: source.handle for name, source in places.items()})
    with pytest.raises(UserError) as error:
        etl.backbone(handle, **given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    if not given:
        assert main(["inspect", f"--backbone={handle}"]) == 2
        assert capsys.readouterr().err == f"error: {error.value}\n"


_SETTINGS = "image_size=None, input_range=None, pooling='avg'"
_OF_MODULES = f"path, {_SETTINGS}, signature=None, output_key=None, features=None, allow_unsafe_deserialization=False"
_OF_KERAS = f"path, {_SETTINGS}, features=None, drop_top=0, custom_objects=None, allow_unsafe_deserialization=False"
_OF_TEXT = (
    "path, vocab=None, preprocess=None, seq_length=None, lower_case=True, pooling='avg', signature=None, "
    "output_key=None, features=None, allow_unsafe_deserialization=False"
)
_OF_CHECKPOINTS = (
    "path, network, image_size=None, pooling='avg', input_range=None, channels=3, features=None, scope='', "
    "rename=None, exclude=(), skip_mismatched=False, ema=True"
)


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (
            "keras_model('m.h5', drop_tp=1)",
            "backbone keras_model has no argument 'drop_tp'; did you mean 'drop_top'? Known: path, image_size, "
            "input_range, pooling, features, drop_top, custom_objects, allow_unsafe_deserialization.",
        ),
        (
            "saved_model('m', drop_top=1)",
            "backbone saved_model has no argument 'drop_top'; Known: path, image_size, input_range, pooling, "
            "signature, output_key, features, allow_unsafe_deserialization.",
        ),
        (
            "keras_model('m.h5', 8, (0, 1), 'avg', None, 1, None, False, 2)",
            f"backbone keras_model({_OF_KERAS}): too many positional arguments; correct the arguments.",
        ),
        (
            "saved_model('m', path='m')",
            f"backbone saved_model({_OF_MODULES}): multiple values for argument 'path'; correct the arguments.",
        ),
        (
            "saved_model(pooling='max')",
            f"backbone saved_model({_OF_MODULES}): missing a required argument: 'path'; correct the arguments.",
        ),
        (
            "tf1_hub(pooling='max')",
            f"backbone tf1_hub({_OF_MODULES}): missing a required argument: 'path'; correct the arguments.",
        ),
        (
            "text_encoder(vocab='v.txt')",
            f"backbone text_encoder({_OF_TEXT}): missing a required argument: 'path'; correct the arguments.",
        ),
        (
            "checkpoint('model.ckpt')",
            f"backbone checkpoint({_OF_CHECKPOINTS}): missing a required argument: 'network'; correct the arguments.",
        ),
        (
            "kears_model('m.h5')",
            "unknown backbone 'kears_model'; did you mean 'keras_model'? Known: checkpoint, keras_model, saved_model, "
            "text_encoder, tf1_hub.",
        ),
    ],
)
def test_a_call_that_does_not_fit_its_source_is_one_line(handle, message, capsys):
    with pytest.raises(UserError) as error:
        etl.backbone(handle)
    assert str(error.value) == message
    assert main(["inspect", f"--backbone={handle}"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("handle", "setting", "message"),
    [
        (
            "keras_model('m.h5')",
            {"signature": "serve"},
            "backbone keras_model has no argument 'signature'; did you mean 'features'? Known: path, "
            "image_size, input_range, pooling, features, drop_top, custom_objects, allow_unsafe_deserialization.",
        ),
        (
            "text_encoder('m', vocab='v.txt')",
            {"image_size": 8},
            "backbone text_encoder has no argument 'image_size'; Known: path, vocab, preprocess, seq_length, "
            "lower_case, pooling, signature, output_key, features, allow_unsafe_deserialization.",
        ),
        (
            "checkpoint('m', network='n.py:f')",
            {"output_key": "logits"},
            "backbone checkpoint has no argument 'output_key'; Known: path, network, image_size, pooling, "
            "input_range, channels, features, scope, rename, exclude, skip_mismatched, ema.",
        ),
        (
            "keras.MobileNet(weights=None)",
            {"output_key": "logits"},
            "keras.MobileNet(weights=None) is a Keras model, which has layers and no output_key; leave "
            "--backbone_output_key out, or name a layer by features='LAYER'.",
        ),
        (
            "keras.MobileNet(weights=None)",
            {"sha256": "sha256:0"},
            "keras.MobileNet(weights=None) begins with random values, so no digest applies; leave --backbone_sha256 "
            "out.",
        ),
    ],
)
def test_settings_that_a_source_does_not_take(handle, setting, message):
    with pytest.raises(UserError) as error:
        etl.backbone(handle, **setting)
    assert str(error.value) == message
