"""Sources that compute in other precisions than float32: their features are float32 all the same."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones import Backbone
from estimator_tl.cli.main import main
from estimator_tl.compat import keras, tf
from estimator_tl.errors import UserError
from tests import tiny
from tests.backbones.building import IMAGES, build
from tests.backbones.keras_steps import assert_same, in_full, one_step


class Pooling(Backbone):
    """A source that only pools."""

    handle, pooling = "source", "avg"
    digest = values = build = None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_pooled_features_are_float32(dtype):
    """A mean of 4,096 values of about 1 is taken in float32: float16 would lose its last digits, or overflow."""
    backbone = Pooling()
    values = (np.random.RandomState(0).rand(2, 64, 64, 3) + 30).astype(tf.as_dtype(dtype).as_numpy_dtype)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        pooled = backbone.pool(tf.constant(values))
        assert pooled.dtype == tf.float32
        result = session.run(pooled)
    np.testing.assert_allclose(result, values.astype(np.float64).mean((1, 2)), rtol=1e-5)


def test_features_that_are_whole_numbers_are_refused():
    backbone = Pooling()
    message = (
        "source gives int32, not floating-point features; name an output that holds numbers to learn from, with "
        "features=."
    )
    with tf.Graph().as_default(), pytest.raises(UserError) as error:
        backbone.pool(tf.zeros([2, 4], tf.int32))
    assert str(error.value) == message


def precise_model(policy):
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        return tiny.tiny_keras_model(seed=3)
    finally:
        keras.mixed_precision.set_global_policy(before)


def one_precise_layer(policy):
    layers = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.GlobalAveragePooling2D()]
    last = keras.layers.Dense(6, name="dense", dtype=policy)
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers, last])
    tiny.randomize(model, 4)
    return model


POLICIES = ["mixed_float16", "float16", "float64", *in_full("mixed_bfloat16", "bfloat16")]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("make", [precise_model, *in_full(one_precise_layer)])
@pytest.mark.parametrize("suffix", [".h5", *in_full(".keras", "")])
def test_keras_models_of_any_policy(policy, make, suffix, tmp_path):
    """What a whole model, or one layer, computes in: variables in half precision are kept in float32."""
    model = make(policy)
    path = str(tmp_path / f"model{suffix}")
    model.save(path, **({} if suffix else {"save_format": "tf"}))
    features = tf.cast(model(IMAGES, training=False), tf.float32).numpy()
    expected = features.mean((1, 2)) if features.ndim == 4 else features
    values = {
        name: value if value.dtype == np.float64 else value.astype(np.float32)
        for name, value in tiny.keras_values(model).items()
    }
    backbone = etl.backbone(path)
    built, _, _ = build(backbone, IMAGES)
    assert built.dtype == np.float32
    np.testing.assert_allclose(built, expected, rtol=1e-5 if policy == "float64" else 2e-2, atol=1e-2)
    assert {v.name: v.dtype for v in backbone.structure.variables} == {n: str(v.dtype) for n, v in values.items()}
    note = "it computes in float16, here without loss scaling: gradients below 6e-8 are 0"
    assert backbone.structure.notes == ((note,) if policy.endswith("_float16") or policy == "float16" else ())
    before, moved = one_step(backbone, "full", tmp_path / "run", "train")
    assert_same(before, values)
    assert moved == set(values)


@pytest.mark.parametrize("policy", ["float64", *in_full("float16", "mixed_float16")])
def test_runs_of_any_policy(policy, pictures, tmp_path, capsys):
    """With everything that reads gradients and values on the way: phases, norms, Adam, resuming, the audit."""
    model = precise_model(policy)
    model.save(str(tmp_path / "model.h5"))
    flags = [
        f"--backbone={tmp_path / 'model.h5'}",
        f"--train_data={pictures}",
        f"--model_dir={tmp_path / 'run'}",
        "--tuning=phases(phase(frozen, 2), full)",
        "--optimizer=adam",
        "--log_norms=1",
        "--batch_size=7",
        "--save_checkpoints_steps=2",
    ]
    assert main(["train", *flags, "--train_steps=4"]) == 0
    assert main(["train", *flags, "--train_steps=6"]) == 0
    assert main(["inspect", f"--model_dir={tmp_path / 'run'}"]) == 0
    assert capsys.readouterr().out.endswith("the checkpoints agree with the plan\n")
    assert main(["predict", f"--model_dir={tmp_path / 'run'}", f"--input={pictures}/cat/000.png"]) == 0
    assert main(["export", f"--model_dir={tmp_path / 'run'}"]) == 0


def test_half_precision_in_several_replicas(tmp_path):
    model = precise_model("mixed_float16")
    model.save(str(tmp_path / "model.h5"))
    config = tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True)
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    backbone = etl.backbone(str(tmp_path / "model.h5"))
    before, moved = one_step(
        backbone, "full", tmp_path / "run", "train", train_distribute=strategy, session_config=config
    )
    assert_same(before, tiny.keras_values(model))
    assert moved == set(before)


def test_float64_in_several_replicas_is_refused(pictures, tmp_path, capsys):
    path = tmp_path / "model.h5"
    precise_model("float64").save(str(path))
    flags = [f"--backbone={path}", f"--train_data={pictures}", f"--model_dir={tmp_path / 'run'}", "--cpu_replicas=2"]
    assert main(["train", *flags, "--tuning=full", "--train_steps=1"]) == 2
    assert capsys.readouterr().err == (
        f"error: {path} trains float64 variables: TensorFlow cannot sum their gradients over 2 replicas together with "
        "the head's, which are float32; train on one device, or freeze them.\n"
    )
    assert not (tmp_path / "run").exists()
