"""Batch-norm statistics estimated anew: against what the layers' inputs really are."""

from __future__ import annotations

import json

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import estimator, keras, tf
from estimator_tl.errors import UserError
from tests.checkpoints import checkpoint_values
from tests.runs import HEAD, states, train
from tests.tiny import SIZE

BATCHES, BATCH = 5, 6
PICTURES = np.random.RandomState(3).rand(BATCHES * BATCH, SIZE, SIZE, 3).astype(np.float32)


def input_fn():
    labels = np.arange(len(PICTURES)) % 3
    return tf.data.Dataset.from_tensor_slices(({"image": PICTURES}, labels)).batch(BATCH)


def train_recalibrated(source, tuning, model_dir, **kwargs):
    model_fn = etl.make_model_fn(
        etl.backbone(source.handle),
        etl.heads.classifier(n_classes=3),
        etl.tuning.registry.make(tuning),
        batch_norm="recalibrate",
        recalibrate_on=input_fn,
        show_plan=lambda text: None,
        **kwargs,
    )
    config = estimator.RunConfig(save_checkpoints_steps=1, tf_random_seed=1)
    model = estimator.Estimator(model_fn, str(model_dir), config, params={})
    model.train(lambda: input_fn().repeat(), max_steps=2)
    return model, [checkpoint_values(model_dir / f"model.ckpt-{step}") for step in range(3)]


def activations(images, kernel, padding):
    return tf.nn.conv2d(images, kernel, 1, padding).numpy().astype(np.float64)


def statistics_of(source, scopes, padding):
    """Mean and variance of what each batch norm takes, batches normalized by their own, variances of all batches."""
    found = {}
    sums = {}
    for start in range(0, len(PICTURES), BATCH):
        net = PICTURES[start : start + BATCH]
        for kernel, norm in scopes:
            net = activations(net, source.values[kernel], padding)
            mean, variance = net.mean((0, 1, 2)), net.var((0, 1, 2))
            sums.setdefault(norm, []).append((mean, variance, net[..., 0].size))
            gamma, beta = source.values[f"{norm}/gamma"], source.values[f"{norm}/beta"]
            net = np.maximum((net - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0).astype(np.float32)
    for norm, values in sums.items():
        means, variances = np.array([v[0] for v in values]), np.array([v[1] for v in values])
        count = values[0][2]
        bessel = count / (count - 1) if padding == "VALID" else 1.0  # Keras's fused batch norm keeps that of a sample
        found[f"{norm}/moving_mean"] = means.mean(0)
        found[f"{norm}/moving_variance"] = variances.mean(0) * bessel + means.var(0)
    return found


SCOPES = {
    "hub_module": ([("stem/conv1/kernel", "stem/conv1_bn"), ("top/conv2/kernel", "top/conv2_bn")], "SAME"),
    "keras_h5": ([("conv1/kernel", "bn1"), ("conv2/kernel", "bn2")], "VALID"),
}


@pytest.mark.parametrize("name", list(SCOPES))
@pytest.mark.parametrize("tuning", ["frozen", "linear_probe_then_full(1)"])
def test_statistics_are_those_of_the_data_and_weights_stay(name, tuning, request, tmp_path):
    source = request.getfixturevalue(name)
    if name == "keras_h5":
        keras.backend.clear_session()
    _, (zero, _, two) = train_recalibrated(source, tuning, tmp_path)
    expected = statistics_of(source, *SCOPES[name])
    assert expected.keys() == {n for n in source.values if "moving" in n}
    for variable, value in expected.items():
        np.testing.assert_allclose(zero[variable], value, rtol=2e-4, atol=1e-5, err_msg=variable)
        np.testing.assert_array_equal(two[variable], zero[variable], err_msg=variable)
        assert not np.allclose(value, source.values[variable], rtol=0.01)
    for variable in source.values.keys() - expected.keys():
        np.testing.assert_array_equal(zero[variable], source.values[variable], err_msg=variable)
    moved = {n for n in source.values if not np.array_equal(zero[n], two[n])}
    assert moved == (set() if tuning == "frozen" else set(source.trainable))


def test_the_first_layers_variance_is_that_of_all_pictures_at_once(keras_h5, tmp_path):
    """Means of batches differ; averaging their variances alone would come out too small."""
    _, (zero, *_) = train_recalibrated(keras_h5, "frozen", tmp_path)
    everything = activations(PICTURES, keras_h5.values["conv1/kernel"], "VALID")
    np.testing.assert_allclose(zero["bn1/moving_mean"], everything.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(zero["bn1/moving_variance"], everything.var((0, 1, 2)), rtol=5e-3)


def test_a_run_that_goes_on_is_not_recalibrated_again(keras_h5, pictures, tmp_path, capsys):
    train(tmp_path / "run", keras_h5, pictures, 2, "--batch_norm=recalibrate", "--validation_fraction=0.2")
    train(tmp_path / "run", keras_h5, pictures, 3, "--batch_norm=recalibrate", "--seed=5", "--validation_fraction=0.2")
    zero, *_, last = states(tmp_path / "run", 3)
    statistics = {name for name in keras_h5.values if "moving" in name}
    for name in keras_h5.values:
        np.testing.assert_array_equal(last[name], zero[name])
        assert np.array_equal(zero[name], keras_h5.values[name]) == (name not in statistics)
    assert set(last) >= HEAD
    capsys.readouterr()
    assert main(["inspect", f"--model_dir={tmp_path / 'run'}"]) == 0
    assert "the checkpoints agree with the plan" in capsys.readouterr().out
    assert main(["evaluate", f"--model_dir={tmp_path / 'run'}"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["global_step"] == 3


def test_together_with_a_warm_start(keras_h5, pictures, tmp_path):
    """The statistics are those of the warm-started weights."""
    train(tmp_path / "first", keras_h5, pictures, 2, "--tuning=full")
    start = f"--warm_start_from={tmp_path / 'first'}"
    train(tmp_path / "second", keras_h5, pictures, 1, start, "--batch_norm=recalibrate")
    train(tmp_path / "fresh", keras_h5, pictures, 1, "--batch_norm=recalibrate")
    weights = checkpoint_values(tmp_path / "first" / "model.ckpt-2")
    second, fresh = (checkpoint_values(tmp_path / name / "model.ckpt-0") for name in ("second", "fresh"))
    for name in keras_h5.trainable:
        np.testing.assert_array_equal(second[name], weights[name])
    assert not np.allclose(second["bn2/moving_mean"], fresh["bn2/moving_mean"], rtol=1e-3)


def test_what_cannot_be_is_refused(keras_h5, tmp_path):
    def model_fn(**kwargs):
        return etl.make_model_fn(etl.backbone(keras_h5.handle), etl.heads.classifier(n_classes=3), **kwargs)

    with pytest.raises(UserError, match="give batch_norm='recalibrate' as well"):
        model_fn(recalibrate_on=input_fn)
    with pytest.raises(UserError, match="needs data; give recalibrate_on"):
        estimator.Estimator(model_fn(batch_norm="recalibrate"), params={}).train(input_fn, steps=1)
    empty = model_fn(batch_norm="recalibrate", recalibrate_on=lambda: input_fn().take(0))
    with pytest.raises(UserError, match="is empty"):
        estimator.Estimator(empty, params={}).train(input_fn, steps=1)
    plain = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Conv2D(4, 3)])
    plain.save(str(tmp_path / "plain.h5"))
    with pytest.raises(UserError, match="no batch-norm statistics to recalibrate"):
        etl.make_model_fn(
            etl.backbone(str(tmp_path / "plain.h5")), etl.heads.classifier(n_classes=3), batch_norm="recalibrate"
        )
