"""Keras files that need code of users, and files of Keras 2.0."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import keras, tf
from estimator_tl.errors import UserError
from tests import custom_layers, keras20, tiny
from tests.backbones.building import IMAGES, build
from tests.backbones.keras_steps import assert_same, in_full, one_step

LAYERS = keras.layers


CUSTOM = "tests.custom_layers:Scale,bent"


@pytest.fixture(scope="module", params=["custom.h5", *in_full("custom.keras", "custom")])
def custom(request, tmp_path_factory):
    """A model that needs a layer and a function of somebody's; they are in a file beside it, too."""
    inputs = keras.Input((8, 8, 3))
    net = LAYERS.Conv2D(4, 3, name="conv", activation=custom_layers.bent)(inputs)
    net = custom_layers.Scale(start=2.0, name="scale")(net)
    model = keras.Model(inputs, custom_layers.Scale(start=2.0, name="again")(net))
    tiny.randomize(model, 9)
    values = {
        f"{layer.name}/{w.name.rpartition('/')[2][:-2]}": w.numpy() for layer in model.layers for w in layer.weights
    }
    folder = tmp_path_factory.mktemp("custom")
    path = str(folder / request.param)
    model.save(path, **({} if "." in request.param else {"save_format": "tf"}))
    shutil.copy(custom_layers.__file__, folder / "layers.py")
    return path, values, model(IMAGES).numpy().mean((1, 2))


@pytest.mark.parametrize("how", ["package", "file", "dict"])
def test_custom_objects(custom, how, tmp_path):
    path, expected, features = custom
    given = {
        "package": CUSTOM,
        "file": f"{Path(path).parent / 'layers.py'}:Scale, bent",
        "dict": {"Scale": custom_layers.Scale, "bent": custom_layers.bent},
    }[how]
    backbone = etl.backbone(f"keras_model({path!r})", custom_objects=given)
    np.testing.assert_allclose(build(backbone, IMAGES)[0], features, rtol=1e-5, atol=1e-6)
    values, moved = one_step(backbone, "last_layers(1)", tmp_path)
    assert moved == {"again/factor"}
    assert_same(values, expected)


def test_custom_layers_under_mirrored_strategy(custom, tmp_path):
    backbone = etl.backbone(custom[0], custom_objects=CUSTOM)
    values, moved = one_step(
        backbone,
        "full",
        tmp_path,
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )
    assert moved == set(values) == {"conv/kernel", "conv/bias", "scale/factor", "again/factor"}


def test_custom_objects_are_part_of_the_digest_and_of_the_run(custom, pictures, tmp_path, monkeypatch):
    path = custom[0]
    file = tmp_path / "layers.py"
    shutil.copy(Path(path).parent / "layers.py", file)
    monkeypatch.chdir(tmp_path)
    handle = f"keras_model({path!r}, custom_objects='layers.py:Scale,bent')"
    flags = [f"--train_data={pictures}", "--train_steps=1", f"--model_dir={tmp_path / 'run'}"]
    assert main(["train", f"--backbone={handle}", *flags]) == 0
    monkeypatch.chdir("/")
    assert main(["predict", f"--model_dir={tmp_path / 'run'}", f"--input={pictures}/*/000.png"]) == 0
    assert main(["inspect", f"--model_dir={tmp_path / 'run'}"]) == 0
    absolute = f"keras_model({path!r}, custom_objects='{file}:Scale,bent')"
    before = etl.backbone(absolute).digest()
    file.write_text(file.read_text() + "\n# changed\n")
    assert etl.backbone(absolute).digest() != before


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ("tests.custom_layers:Scal", "no class or function 'Scal' in tests.custom_layers; did you mean 'Scale'"),
        ("tests.custom_layers:NUMBER", "no class or function 'NUMBER'"),
        ("tests.custom_layers:Scale,", "names no NAMES; write custom_objects='pkg.module:NAMES' or"),
        ("tests.no_such:Scale", "cannot be imported .No module named 'tests.no_such'.*check PYTHONPATH"),
        ("/no/such/layers.py:Scale", "there is no file /no/such/layers.py; check the path"),
        ("sys:exit", "sys is not a file of Python code"),
    ],
)
def test_custom_objects_that_are_not_there(keras_h5, objects, message):
    with pytest.raises(UserError, match=message) as error:
        etl.backbone(keras_h5.handle, custom_objects=objects)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", [["Scale"], ["bent"], ["bent", "Scale"]])
def test_files_that_need_custom_objects_say_so(tmp_path, missing):
    """Of classes that no module of this process has, as a colleague's are."""
    module = {"__name__": "colleagues.layers"}
    exec(Path(custom_layers.__file__).read_text(), module)
    inputs = keras.Input((8, 8, 3))
    net = LAYERS.Conv2D(4, 3, activation=module["bent"] if "bent" in missing else None)(inputs)
    model = keras.Model(inputs, module["Scale"]()(net) if "Scale" in missing else net)
    names = ",".join(missing)
    for name in ("m.h5", "m.keras", "m"):
        model.save(str(tmp_path / name), **({} if "." in name else {"save_format": "tf"}))
        with pytest.raises(UserError, match=f"needs {names.replace(',', ', ')}, .*'pkg.mod:{names}'") as error:
            etl.backbone(f"keras_model({str(tmp_path / name)!r})")
        assert "\n" not in str(error.value)
        assert etl.backbone(str(tmp_path / name), custom_objects={name: module[name] for name in missing})


@pytest.mark.parametrize(
    ("save", "tuning", "expected"),
    [
        (keras20.save_sequential, "last_layers(4)", {"conv2d_2/kernel", "batch_normalization_2/gamma",
                                                     "batch_normalization_2/beta"}),
        (keras20.save_sequential, "full", None),
        (keras20.save_functional, "from_layer('conv2d_1')", {"conv2d_1/kernel"}),
        (keras20.save_functional, "full", None),
    ],
)  # fmt: skip
def test_files_of_keras_2_0(save, tuning, expected, tmp_path):
    written = save(tmp_path / "old.hdf5")
    backbone = etl.backbone(f"keras_model({str(tmp_path / 'old.hdf5')!r}, drop_top=1)")
    assert backbone.image_spec.shape == (64, 64, 1)
    transferred = {name: value for name, value in written.items() if not name.startswith("dense_1")}
    values, moved = one_step(backbone, tuning, tmp_path / "run")
    assert_same(values, transferred)
    assert moved == (expected or {name for name in transferred if "moving" not in name})
