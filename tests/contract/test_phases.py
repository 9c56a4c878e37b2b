"""Which variables move in which step of a phased run: measured on a checkpoint of every step, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from tests.checkpoints import checkpoint_values
from tests.contract.phase_runs import HEAD, RATE, moved_by_step, one_batch, three_phases, train

OPTIMIZERS = {
    "adam": lambda: etl.optimizers.adam(RATE),
    "momentum": lambda: etl.optimizers.sgd(RATE, momentum=0.9),
    "rmsprop": lambda: etl.optimizers.rmsprop(RATE, momentum=0.5),
}


def make_model_fn(source, tuning, optimizer="adam", **kwargs):
    return etl.make_model_fn(
        backbone=etl.backbone(source.handle),
        tuning=etl.tuning.registry.make(tuning),
        head=etl.heads.classifier(n_classes=3),
        optimizer=OPTIMIZERS[optimizer](),
        show_plan=lambda text: None,
        **kwargs,
    )


@pytest.mark.parametrize("source", ["hub_module", "keras_h5"], indirect=True)
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_each_step_moves_exactly_its_phase(source, optimizer, tmp_path):
    tuning, expected = three_phases(source)
    states = train(make_model_fn(source, tuning, optimizer), source, tmp_path, 6)
    for name, value in source.values.items():
        np.testing.assert_array_equal(states[0][name], value, err_msg=f"step 0 of {name} is not the source")
    names = {*source.values, *HEAD}
    assert moved_by_step(states, names) == expected
    slots = {name for name in states[0] if name.rpartition("/")[0] in names and name not in names}
    assert len(slots) >= len(HEAD | source.trainable)  # slots of the union are there from step 0
    for step, moved in enumerate(moved_by_step(states, slots)):
        assert {slot.rpartition("/")[0] for slot in moved} <= expected[step]


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_a_part_may_rest_and_come_back(source, tmp_path):
    """At rest it is moved neither by its momentum nor by Adam."""
    spec, top = next(iter(source.partial.items()))
    tuning = f"phases(phase(full, until=2), phase({spec}, until=4), full)"
    everything = HEAD | source.trainable
    expected = [everything, everything, HEAD | top, HEAD | top, everything, everything]
    for optimizer in ("momentum", "adam"):
        states = train(make_model_fn(source, tuning, optimizer), source, tmp_path / optimizer, 6)
        assert moved_by_step(states, {*source.values, *HEAD}) == expected


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_a_group_begins_with_adams_first_step(source, tmp_path):
    """Adam's first step is one learning rate long; with a global bias correction it would be about three."""
    states = train(make_model_fn(source, "linear_probe_then_full(40)"), source, tmp_path, 42)
    for first, second in ((40, 41), (0, 1)):
        names = source.trainable if first else HEAD
        for name in names:
            change = np.abs(states[second][name] - states[first][name])
            assert change.max() <= RATE * 1.001, name
            assert np.median(change) >= RATE * 0.9, name


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_the_first_phase_is_the_frozen_run(source, tmp_path):
    phased = train(make_model_fn(source, "linear_probe_then_full(4)"), source, tmp_path / "phased", 4)
    frozen = train(make_model_fn(source, "frozen"), source, tmp_path / "frozen", 4)
    for name in HEAD:
        np.testing.assert_allclose(phased[4][name], frozen[4][name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
@pytest.mark.parametrize("optimizer", ["adam", pytest.param("momentum", marks=pytest.mark.full)])
def test_stopping_in_any_phase_and_going_on_changes_nothing(source, optimizer, tmp_path):
    tuning, _ = three_phases(source)
    model_fn = make_model_fn(source, tuning, optimizer)
    whole = train(model_fn, source, tmp_path / "whole", 6)
    parts = train(model_fn, source, tmp_path / "parts", 1, 2, 3, 6)
    assert whole[6].keys() == parts[6].keys()
    for name, value in whole[6].items():
        np.testing.assert_array_equal(parts[6][name], value, err_msg=name)


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_each_phase_has_its_learning_rate(source, tmp_path):
    """Plain descent on one batch: the size of a step over its gradient is the rate."""
    tuning = "phases(phase(frozen, 2), phase(frozen, 4, multiplier=0.5), phase(full, learning_rate='constant(1e-4)'))"
    model_fn = make_model_fn(source, tuning, "momentum", learning_rate="exponential(0.01, 1, 0.5)")
    rates = []

    class Look(tf.compat.v1.train.SessionRunHook):
        def begin(self):
            self.summary = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.SUMMARIES)

        def before_run(self, run_context):
            return tf.compat.v1.train.SessionRunArgs(self.summary)

        def after_run(self, run_context, run_values):
            for text in run_values.results:
                for value in tf.compat.v1.Summary.FromString(text).value:
                    if value.tag == "learning_rate":
                        rates.append(value.simple_value)

    model = estimator.Estimator(model_fn, str(tmp_path), params={})
    model.train(one_batch(source), steps=6, hooks=[Look()])
    np.testing.assert_allclose(rates, [0.01, 0.005, 0.00125, 0.000625, 1e-4, 1e-4], rtol=1e-5)


@pytest.mark.parametrize("source", [pytest.param("hub_module", marks=pytest.mark.full), "keras_h5"], indirect=True)
def test_phases_under_mirrored_on_two_devices(source, tmp_path):
    tuning, expected = three_phases(source)
    states = train(
        make_model_fn(source, tuning),
        source,
        tmp_path,
        6,
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )
    assert moved_by_step(states, {*source.values, *HEAD}) == expected


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_phases_in_a_tpu_estimator_on_cpu(source, tmp_path):
    from estimator_tl.revival.api import load_v1_estimator

    tpu = load_v1_estimator().tpu
    tuning, expected = three_phases(source)
    config = tpu.RunConfig(model_dir=str(tmp_path), save_checkpoints_steps=1, keep_checkpoint_max=0, tf_random_seed=1)
    model = tpu.TPUEstimator(make_model_fn(source, tuning), config=config, use_tpu=False, train_batch_size=4)
    model.train(lambda params: one_batch(source)(), max_steps=6)
    states = [checkpoint_values(tmp_path / f"model.ckpt-{step}") for step in range(7)]
    assert moved_by_step(states, {*source.values, *HEAD}) == expected
