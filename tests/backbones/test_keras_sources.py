"""Keras files of every age and make: where they are cut, what code of users they need, what of them moves."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.digest import values_digest
from estimator_tl.backbones.keras_applications import keras_application
from estimator_tl.cli.main import main
from estimator_tl.compat import estimator, keras, tf
from estimator_tl.errors import UserError
from estimator_tl.registry import parse_call
from tests import custom_layers, keras20, tiny
from tests.backbones.test_backbones import IMAGES, build
from tests.contract.test_variables import checkpoint_values
from tests.tiny import random_batches

LAYERS = keras.layers


def in_full(*names):
    return [pytest.param(name, marks=pytest.mark.full) for name in names]


def one_step(backbone, tuning, model_dir, batch_norm="inference", **config):
    """Trains one step; returns the values before it and the backbone's variables that moved."""
    model_fn = etl.make_model_fn(
        backbone,
        etl.heads.classifier(n_classes=3),
        etl.tuning.registry.make(tuning),
        etl.optimizers.sgd(0.1),
        batch_norm=batch_norm,
        show_plan=lambda text: None,
    )
    spec = backbone.image_spec
    batches = random_batches(spec.height)

    def grey_or_rgb():
        return batches().map(lambda x, y: ({"image": x["image"][..., : spec.channels]}, y))

    run_config = estimator.RunConfig(tf_random_seed=1, **config)
    estimator.Estimator(model_fn, str(model_dir), run_config, params={}).train(grey_or_rgb, steps=1)
    first, last = (checkpoint_values(Path(model_dir) / f"model.ckpt-{step}") for step in (0, 1))
    names = [variable.name for variable in backbone.structure.variables]
    return {name: first[name] for name in names}, {n for n in names if not np.array_equal(first[n], last[n])}


def assert_same(values, expected):
    assert set(values) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value, err_msg=name)


# Several features.


def test_features_are_pooled_and_joined(keras_h5):
    model = keras.models.load_model(keras_h5.handle)
    ends = [model.get_layer(name).output for name in ("relu1", "bn2")]
    expected = [net.numpy() for net in keras.Model(model.inputs, ends)(IMAGES, training=False)]
    for pooling in ("avg", "max", "flatten"):
        backbone = etl.backbone(keras_h5.handle, features=["relu1", "bn2"], pooling=pooling)
        pooled = {
            "avg": [net.mean((1, 2)) for net in expected],
            "max": [net.max((1, 2)) for net in expected],
            "flatten": [net.reshape(2, -1) for net in expected],
        }[pooling]
        features, _, _ = build(backbone, IMAGES)
        np.testing.assert_allclose(features, np.concatenate(pooled, -1), rtol=1e-5, atol=1e-6)
        assert backbone.output_shape == (None, features.shape[1])
    assert backbone.structure.layers[-1] == "bn2"
    with pytest.raises(UserError, match="cannot be joined; use pooling"):
        etl.backbone(keras_h5.handle, features=["relu1", "bn2"], pooling="none")


def test_what_features_do_not_need_is_left_out(keras_h5, tmp_path):
    backbone = etl.backbone(f"keras_model({keras_h5.handle!r}, features=['conv1', 'bn1'])")
    values, moved = one_step(backbone, "last_layers(1)", tmp_path)
    assert moved == {"bn1/gamma", "bn1/beta"}
    assert_same(values, {n: v for n, v in keras_h5.values.items() if n.startswith(("conv1", "bn1"))})


def test_features_of_an_application(application):
    handle = application.handle[:-1] + ", features=['conv_pw_1_relu', 'conv_pw_3_relu'])"
    backbone = etl.backbone(handle)
    assert backbone.output_shape == (None, 16 + 32)
    assert backbone.structure.layers[-1] == "conv_pw_3_relu"
    one = etl.backbone(application.handle, features="conv_pw_1_relu")
    assert one.output_shape == (None, 16, 16, 16)
    images = np.random.RandomState(0).rand(2, 32, 32, 3).astype(np.float32)
    np.testing.assert_allclose(build(one, images)[0], build(backbone, images)[0][:, :16], rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="no layer 'conv_pw_1_rlu'; did you mean 'conv_pw_1_relu'"):
        etl.backbone(application.handle, features="conv_pw_1_rlu")


def test_several_outputs_are_chosen_from(tmp_path):
    inputs = keras.Input((8, 8, 3))
    net = LAYERS.Conv2D(4, 3, name="conv")(inputs)
    keras.Model(inputs, [net, LAYERS.ReLU(name="relu")(net)]).save(str(tmp_path / "two.h5"))
    with pytest.raises(UserError, match=r"several outputs .*features='LAYER'.*features=\['LAYER', 'LAYER2'\]"):
        etl.backbone(str(tmp_path / "two.h5"))
    assert etl.backbone(str(tmp_path / "two.h5"), features=["relu", "conv"]).output_shape == (None, 8)


def test_a_layer_that_is_called_twice_is_no_place_to_cut(tmp_path):
    inputs = keras.Input((8, 8, 3))
    twice = LAYERS.Conv2D(3, 1, name="twice")
    keras.Model(inputs, LAYERS.ReLU(name="relu")(twice(twice(inputs)))).save(str(tmp_path / "twice.h5"))
    with pytest.raises(UserError, match="layer 'twice' has several inputs or outputs in this model; name another"):
        etl.backbone(str(tmp_path / "twice.h5"), features="twice")
    assert len(etl.backbone(str(tmp_path / "twice.h5"), features="relu").structure.variables) == 2


@pytest.mark.parametrize("features", [[], ["bn1", "bn1"], [1], 3.5])
def test_features_that_are_no_list_of_layers(keras_h5, features):
    with pytest.raises(UserError, match="must be a name or a list of different names"):
        etl.backbone(keras_h5.handle, features=features)


# Nested models.


def inner_model(name):
    inputs = keras.Input((8, 8, 3))
    net = LAYERS.BatchNormalization(name="bn")(LAYERS.Conv2D(3, 1, name="conv")(inputs))
    return keras.Model(inputs, LAYERS.ReLU(name="relu")(net), name=name)


def nested_model():
    """Two nested models, Functional and Sequential, whose layers have the same names, and a layer after each."""
    inputs = keras.Input((8, 8, 3))
    sequential = keras.Sequential(
        [LAYERS.Conv2D(3, 1, name="conv", input_shape=(8, 8, 3)), LAYERS.BatchNormalization(name="bn")], name="second"
    )
    net = LAYERS.Conv2D(3, 1, name="middle")(inner_model("first")(inputs))
    net = LAYERS.GlobalAveragePooling2D(name="pool")(sequential(net))
    model = keras.Model(inputs, LAYERS.Dense(4, name="top")(net), name="outer")
    tiny.randomize(model, 7)
    return model


@pytest.fixture(scope="module", params=["nested.h5", *in_full("nested.keras", "nested")])
def nested(request, tmp_path_factory):
    model = nested_model()
    path = str(tmp_path_factory.mktemp("nested") / request.param)
    model.save(path, **({} if "." in request.param else {"save_format": "tf"}))
    return path, model


# As a graph names what comes second under the same name, and so does a checkpoint.
SECOND = {"conv_1/kernel", "conv_1/bias", "bn_1/gamma", "bn_1/beta"}


@pytest.mark.parametrize(
    ("tuning", "batch_norm", "expected"),
    [
        ("last_layers(1)", "inference", {"top/kernel", "top/bias"}),
        ("last_layers(3)", "inference", {"top/kernel", "top/bias", *SECOND}),
        ("scopes('^bn_1/')", "train", {"bn_1/gamma", "bn_1/beta", "bn_1/moving_mean", "bn_1/moving_variance"}),
        ("from_layer('middle')", "inference", {"middle/kernel", "middle/bias", "top/kernel", "top/bias", *SECOND}),
    ],
)
def test_policies_inside_nested_models(nested, tuning, batch_norm, expected, tmp_path):
    path, model = nested
    backbone = etl.backbone(path)
    values, moved = one_step(backbone, tuning, tmp_path, batch_norm)
    assert moved == expected
    wanted = [weight.numpy() for layer in model.layers for weight in layer.weights]
    assert len(values) == len(wanted)
    for (name, value), want in zip(values.items(), wanted):
        np.testing.assert_array_equal(value, want, err_msg=name)


def test_cut_inside_nested_models(nested, tmp_path):
    path, _ = nested
    model = keras.models.load_model(path)
    first, second = model.get_layer("first"), model.get_layer("second")
    middle = model.get_layer("middle")
    after = middle(first(IMAGES, training=False)).numpy()
    conv_1 = keras.Model(first.inputs, first.get_layer("conv").output)(IMAGES).numpy()
    conv_2 = second.get_layer("conv")(after).numpy()
    for features, expected in (
        ("first", [first(IMAGES, training=False).numpy()]),
        ("second/conv", [conv_2]),
        (["middle", "second/conv"], [after, conv_2]),
        (["first/relu", "first/conv"], [first(IMAGES, training=False).numpy(), conv_1]),
    ):
        backbone = etl.backbone(path, features=features)
        pooled = np.concatenate([net.mean((1, 2)) for net in expected], -1)
        np.testing.assert_allclose(build(backbone, IMAGES)[0], pooled, rtol=1e-4, atol=1e-5)
    backbone = etl.backbone(path, features=["middle", "second/conv"])
    _, moved = one_step(backbone, "last_layers(1)", tmp_path)
    assert moved == {"conv_1/kernel", "conv_1/bias"}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("second/con", "'second' of .* has no layer 'con'; did you mean 'conv'"),
        ("secnd", "has no layer 'secnd'; did you mean 'second'"),
        ("middle/conv", "has no layer 'middle/conv'; did you mean 'middle'. Known: .*first/conv"),
        (["first/conv", "middle"], "first/conv cannot be joined with what comes after 'first'"),
    ],
)
def test_places_that_nested_models_do_not_have(nested, features, message):
    with pytest.raises(UserError, match=message):
        etl.backbone(nested[0], features=features)


# Subclassed models.


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = LAYERS.Conv2D(3, 3, name="conv")
        self.norm = LAYERS.BatchNormalization(name="norm")

    def call(self, inputs, training=False):
        return self.norm(self.conv(inputs), training=training)


@pytest.fixture(scope="module")
def subclassed(tmp_path_factory):
    root = tmp_path_factory.mktemp("subclassed")
    model = Subclassed()
    model(IMAGES)
    tiny.randomize(model, 8)
    model.save(str(root / "folder"), save_format="tf")
    model.save(str(root / "model.keras"))
    model.save_weights(str(root / "weights.h5"))
    return root, model


@pytest.mark.parametrize(("tuning", "batch_norm"), [("scopes('norm')", "inference"), ("full", "train")])
def test_a_subclassed_saved_model_moves_what_it_says(subclassed, tuning, batch_norm, tmp_path):
    root, model = subclassed
    backbone = etl.backbone(str(root / "folder"))
    names = {v.name for v in backbone.structure.variables}
    norm = {v.name for v in backbone.structure.variables if "norm" in v.name and v.trainable}
    assert (len(names), len(norm)) == (6, 2)
    values, moved = one_step(backbone, tuning, tmp_path, batch_norm)
    assert moved == (names if tuning == "full" else norm)
    wanted = sorted((weight.numpy() for weight in model.weights), key=repr)
    for value, want in zip(sorted(values.values(), key=repr), wanted):
        np.testing.assert_array_equal(value, want)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.keras", r"is not a Functional or Sequential Keras model; .*model\.save\('FOLDER', save_format='tf'\)"),
        ("weights.h5", "holds weights only, no model; give it to the network"),
    ],
)
def test_subclassed_models_without_a_graph_are_refused_with_the_remedy(subclassed, name, message):
    given = {"custom_objects": {"Subclassed": Subclassed}} if name.endswith(".keras") else {}
    with pytest.raises(UserError, match=message):
        etl.backbone(str(subclassed[0] / name), **given)


def test_a_subclassed_folder_cannot_be_cut(subclassed):
    folder = str(subclassed[0] / "folder")
    with pytest.raises(UserError, match="is not a Functional or Sequential Keras model"):
        etl.backbone(f"keras_model({folder!r}, features='conv')")
    with pytest.raises(UserError, match="gives one output without a name; leave 'conv' out"):  # as a SavedModel
        etl.backbone(folder, features="conv")


# Classes and functions of users.

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
        ("sys:exit", "sys is no file of Python code"),
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


# Files of Keras 2.0.


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


# What a digest pins.


def test_the_digest_of_imagenet_weights_is_that_of_their_values(monkeypatch):
    """Without a network: the function that would download them makes them here."""
    call = parse_call("keras.MobileNet(alpha=0.25, image_size=32)")
    real, shift = keras.applications.MobileNet, [0.0]

    def downloaded(weights, **kwargs):
        assert weights == "imagenet"
        model = real(weights=None, **kwargs)
        model.set_weights([value + shift[0] for value in model.get_weights()])
        return model

    downloaded.__signature__ = __import__("inspect").signature(real)
    downloaded.__module__ = real.__module__
    monkeypatch.setattr(keras.applications, "MobileNet", downloaded)
    first = keras_application(call, "a")
    assert first.digest() == keras_application(call, "b").digest() == values_digest(first.values())
    shift[0] = 1e-6
    assert keras_application(call, "a").digest() != first.digest()


def test_values_digest_tells_names_shapes_and_types_apart():
    value = np.arange(4, dtype=np.float32)
    variants = [{"a": value}, {"b": value}, {"a": value.reshape(2, 2)}, {"a": value.view(np.int32)}, {"a": value + 1}]
    assert len({values_digest(variant) for variant in variants}) == len(variants)
    assert values_digest({"a": value, "b": value}) == values_digest({"b": value, "a": value})


def test_random_weights_are_the_same_each_time_and_cannot_be_pinned():
    handle = "keras.MobileNet(alpha=0.25, weights=None, image_size=32)"
    first, second = etl.backbone(handle), etl.backbone(handle)
    assert_same(first.values(), second.values())
    assert first.digest() == second.digest()
    with pytest.raises(UserError, match="begins with random values, which no digest pins; leave --backbone_sha256 out"):
        etl.backbone(handle, sha256=first.digest())
    tf.random.set_seed(3)
    keras.utils.set_random_seed(3)
    expected = keras.initializers.GlorotUniform()((2, 2)).numpy()
    keras.utils.set_random_seed(3)
    etl.backbone(handle)  # leaves the program's own random numbers alone
    np.testing.assert_array_equal(keras.initializers.GlorotUniform()((2, 2)).numpy(), expected)


def test_a_run_that_has_its_values_keeps_no_second_copy_of_them(tmp_path, keras_h5):
    backbone = etl.backbone(keras_h5.handle)
    before = {name: value.copy() for name, value in backbone.values().items()}
    held = [weakref.ref(value) for value in backbone.values().values()]
    given, _ = one_step(backbone, "frozen", tmp_path / "run")
    gc.collect()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        session.run(tf.constant(0))  # TensorFlow gives up arrays that sessions were fed when it runs the next time
    assert sum(reference() is not None for reference in held) == 0
    assert_same(given, before)
    assert_same(backbone.values(), before)  # read again


def test_further_runs_of_a_backbone_begin_with_the_same_values(tmp_path, keras_h5):
    backbone = etl.backbone(keras_h5.handle)
    first, _ = one_step(backbone, "full", tmp_path / "one")
    second, _ = one_step(backbone, "full", tmp_path / "two")
    assert_same(second, first)
