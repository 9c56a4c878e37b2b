"""Optimizers that users bring: what they move, and in which steps, measured as for the project's own."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, keras, tf
from estimator_tl.errors import UserError
from tests.contract.phase_runs import HEAD, RATE, moved_by_step, one_batch, three_phases, train

V1 = tf.compat.v1.train
LEGACY = keras.optimizers.legacy


class Wrapped(V1.Optimizer):
    """Hands everything to another optimizer, as loss scaling and averaging ones do."""

    def __init__(self, inner):
        super().__init__(False, "Wrapped")
        self._inner = inner

    def compute_gradients(self, loss, var_list=None, **kwargs):
        return self._inner.compute_gradients(loss, var_list=var_list, **kwargs)

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        return self._inner.apply_gradients(grads_and_vars, global_step, name)


class Assigning(V1.Optimizer):
    """Writes to variables in an apply_gradients of its own, as the AdamWeightDecayOptimizer of the BERT code does."""

    def __init__(self):
        super().__init__(False, "Assigning")

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        moves = [v.assign_sub(RATE * g) for g, v in grads_and_vars]
        return tf.group(*moves, global_step.assign_add(1))


FOREIGN = {
    "v1_adam": V1.AdamOptimizer(RATE),
    "v1_momentum_function": lambda: V1.MomentumOptimizer(tf.constant(RATE), 0.9),
    "wrapped_adam": Wrapped(V1.AdamOptimizer(RATE)),
    "keras_adam": LEGACY.Adam(RATE, epsilon=1e-8),
    "keras_momentum": LEGACY.SGD(RATE, momentum=0.9),
    "keras_schedule": lambda: LEGACY.SGD(keras.optimizers.schedules.ExponentialDecay(RATE, 1, 1.0)),
}
OWN = {
    "v1_adam": etl.optimizers.adam(RATE),
    "v1_momentum_function": etl.optimizers.sgd(RATE, momentum=0.9),
    "wrapped_adam": etl.optimizers.adam(RATE),
    "keras_adam": etl.optimizers.adam(RATE),
    "keras_momentum": etl.optimizers.sgd(RATE, momentum=0.9),
    "keras_schedule": etl.optimizers.sgd(RATE),
}


def make_model_fn(source, tuning, optimizer, **kwargs):
    return etl.make_model_fn(
        backbone=etl.backbone(source.handle),
        tuning=etl.tuning.registry.make(tuning),
        head=etl.heads.classifier(n_classes=3),
        optimizer=optimizer,
        show_plan=lambda text: None,
        **kwargs,
    )


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
@pytest.mark.parametrize(
    "name",
    [
        "wrapped_adam",
        "keras_adam",
        *(pytest.param(name, marks=pytest.mark.full) for name in FOREIGN if name not in ("wrapped_adam", "keras_adam")),
    ],
)
def test_each_step_moves_its_phase_as_the_projects_own_optimizer_does(source, name, tmp_path):
    tuning, expected = three_phases(source)
    states = train(make_model_fn(source, tuning, FOREIGN[name]), source, tmp_path / "foreign", 3, 6)
    assert moved_by_step(states, {*source.values, *HEAD}) == expected
    assert int(states[6]["global_step"]) == 6
    own = train(make_model_fn(source, tuning, OWN[name]), source, tmp_path / "own", 6)
    for variable in {*source.values, *HEAD}:
        np.testing.assert_allclose(states[6][variable], own[6][variable], rtol=1e-4, atol=1e-6, err_msg=variable)


@pytest.mark.parametrize("source", ["hub_module"], indirect=True)
def test_a_policy_without_phases(source, tmp_path):
    spec, top = next(iter(source.partial.items()))
    for name in ("v1_adam", "keras_adam"):
        states = train(make_model_fn(source, spec, FOREIGN[name]), source, tmp_path / name, 2)
        assert moved_by_step(states, {*source.values, *HEAD}) == [HEAD | top] * 2


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
@pytest.mark.parametrize(
    "name", ["keras_adam", *(pytest.param(name, marks=pytest.mark.full) for name in ("v1_adam", "keras_momentum"))]
)
def test_under_mirrored_a_step_is_that_of_one_device(source, name, tmp_path):
    """Both replicas see the same batch, so the mean of their gradients is the gradient of one."""
    tuning, _ = three_phases(source)
    model_fn = make_model_fn(source, tuning, FOREIGN[name])
    single = train(model_fn, source, tmp_path / "single", 6)
    mirrored = train(
        model_fn,
        source,
        tmp_path / "mirrored",
        6,
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )
    for variable in {*source.values, *HEAD}:
        np.testing.assert_allclose(single[6][variable], mirrored[6][variable], rtol=1e-3, atol=1e-5, err_msg=variable)


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
@pytest.mark.parametrize("name", ["wrapped_adam", "keras_adam"])
def test_begins_anew_for_optimizers_of_others_too(source, name, tmp_path):
    states = train(make_model_fn(source, "linear_probe_then_full(40)", FOREIGN[name]), source, tmp_path, 41)
    for variable in source.trainable:
        change = np.abs(states[41][variable] - states[40][variable])
        assert RATE * 0.9 <= np.median(change) <= change.max() <= RATE * 1.001, variable


class Decaying(V1.MomentumOptimizer):
    """Momentum with decoupled weight decay."""

    def _resource_apply_dense(self, grad, var):
        with tf.control_dependencies([var.assign(0.9 * var)]):
            return super()._resource_apply_dense(grad, var)


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_weight_decay_leaves_alone_what_rests(source, tmp_path):
    """With a gradient of zero alone, decay and momentum would go on moving it."""
    spec, top = next(iter(source.partial.items()))
    tuning = f"phases(phase({spec}, until=2), phase(frozen, until=4), full)"
    states = train(make_model_fn(source, tuning, Decaying(RATE, 0.9)), source, tmp_path, 5)
    expected = [HEAD | top] * 2 + [HEAD] * 2 + [HEAD | source.trainable]
    assert moved_by_step(states, {*source.values, *HEAD}) == expected


def refused(source, optimizer, tuning="full", **kwargs):
    with pytest.raises(UserError) as error:  # noqa: PT012 - some are found at once, some in the graph
        model_fn = make_model_fn(source, tuning, optimizer, **kwargs)
        estimator.Estimator(model_fn, params={}).train(one_batch(source), steps=1)
    return str(error.value)


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_new_keras_optimizers_are_refused_with_the_reason(source):
    for kind in {type(keras.optimizers.Adam()), type(tf.keras.optimizers.Adam())}:
        for given in (kind(RATE), lambda kind=kind: kind(RATE)):
            assert "works in eager execution only" in refused(source, given)
            assert "use etl.keras.optimizers.legacy.Adam" in refused(source, given)


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_what_cannot_be_is_refused(source):
    assert "'adam' is not an optimizer" in refused(source, "adam")
    assert "learning rate 0.1 conflicts with your own optimizer" in refused(source, LEGACY.SGD(0.1), learning_rate=0.1)
    faster = "phases(phase(frozen, 2), phase(full, multiplier=0.5))"
    assert "the phase from step 2 changes the learning rate" in refused(source, LEGACY.SGD(0.1), faster)
    assert "Nadam shares its bias correction" in refused(source, LEGACY.Nadam(0.1), "linear_probe_then_full(2)")


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
@pytest.mark.parametrize("phase", [None, 1])
def test_an_optimizer_that_bypasses_the_gate_is_refused(source, phase):
    message = refused(source, Assigning(), "linear_probe_then_full(2)", only_phase=phase)
    assert "it would also train variables of a later phase" in message


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_an_optimizer_that_bypasses_the_gate_may_train_without_phases(source, tmp_path):
    spec, top = next(iter(source.partial.items()))
    states = train(make_model_fn(source, spec, Assigning()), source, tmp_path, 2)
    assert moved_by_step(states, {*source.values, *HEAD}) == [HEAD | top] * 2
