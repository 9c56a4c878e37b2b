"""Known traps of transfer learning on Estimator, each with the care that avoids it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, keras, tf
from estimator_tl.tuning import collections
from estimator_tl.tuning.hooks import FrozenCheckHook, FrozenVariablesChangedError
from tests.tiny import random_batches


def graph_of(source, tuning, mode="train", **kwargs):
    """Builds the model_fn's graph; returns (spec, graph)."""
    model_fn = etl.make_model_fn(
        backbone=etl.backbone(source.handle),
        tuning=etl.tuning.registry.make(tuning),
        head=etl.heads.classifier(n_classes=3),
        **kwargs,
    )
    with tf.Graph().as_default() as graph:
        features, labels = tf.compat.v1.data.make_one_shot_iterator(random_batches(source.size)()).get_next()
        return model_fn(features, labels, mode), graph


def names(variables):
    return {variable.op.name for variable in variables}


HEAD = {"head/logits/kernel", "head/logits/bias"}
SOURCES = ["hub_module", "keras_h5"]


@pytest.mark.parametrize("source", SOURCES, indirect=True)
@pytest.mark.parametrize("tuning", ["frozen", "last_groups(2)", "full"])
def test_collections_agree_with_the_plan(source, tuning):
    expected = {
        "frozen": set(),
        "last_groups(2)": {n for n in source.trainable if "conv2" in n or "bn2" in n},
        "full": source.trainable,
    }[tuning]
    _, graph = graph_of(source, tuning)
    trainable = graph.get_collection(tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES)
    assert len(trainable) == len(set(names(trainable)))
    assert names(trainable) == expected | HEAD
    assert names(graph.get_collection(collections.TRAINABLE)) == expected | HEAD
    assert names(graph.get_collection(collections.BACKBONE)) == set(source.values)
    assert names(graph.get_collection(collections.HEAD)) == HEAD
    assert names(graph.get_collection(collections.FROZEN)) == set(source.values) - expected


@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_a_foreign_minimize_without_a_list_trains_what_the_plan_says(source):
    spec, graph = graph_of(source, "last_groups(2)")
    with graph.as_default(), tf.compat.v1.Session() as session:
        op = tf.compat.v1.train.GradientDescentOptimizer(0.1).minimize(spec.loss)
        session.run([tf.compat.v1.global_variables_initializer()])
        variables = tf.compat.v1.global_variables()
        before = session.run(variables)
        session.run(op)
        after = session.run(variables)
    moved = {v.op.name for v, b, a in zip(variables, before, after) if not np.array_equal(b, a)}
    assert moved == {n for n in source.trainable if "conv2" in n or "bn2" in n} | HEAD


@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_regularization_losses_of_trained_variables_are_in_the_loss(source):
    kernel = next(v for n, v in source.values.items() if "conv1/kernel" in n)
    factor = 0.5 if source.handle.endswith("tiny") else 1.0  # tf.nn.l2_loss halves, Keras does not
    penalty = 1e-3 * factor * np.square(kernel).sum()

    def loss(tuning):
        spec, graph = graph_of(source, tuning, "eval")
        backbone = etl.backbone(source.handle)
        with graph.as_default(), tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for variable in graph.get_collection(collections.BACKBONE):
                variable.load(source.values[variable.op.name], session)
            for variable in graph.get_collection(collections.HEAD):
                variable.load(np.zeros(variable.shape, np.float32), session)
            assert backbone.handle == source.handle
            return float(session.run(spec.loss))

    assert loss("frozen") == pytest.approx(np.log(3), rel=1e-5)
    assert loss("full") == pytest.approx(np.log(3) + penalty, rel=1e-5)


def test_pretrained_values_are_read_once(keras_h5, tmp_path, monkeypatch):
    reads = []
    load_model = keras.models.load_model
    monkeypatch.setattr(keras.models, "load_model", lambda *a, **k: reads.append(a) or load_model(*a, **k))
    model_fn = etl.make_model_fn(etl.backbone(keras_h5.handle), etl.heads.classifier(n_classes=3))
    model = estimator.Estimator(model_fn, str(tmp_path), params={})
    for _ in range(2):
        model.train(random_batches(8), steps=1)
        model.evaluate(random_batches(8), steps=1)
    assert len(reads) == 1


def test_frozen_check_fails_when_something_else_writes(keras_h5, tmp_path):
    """An op outside the plan that moves a frozen variable by one bit stops the run with an error."""
    model_fn = etl.make_model_fn(etl.backbone(keras_h5.handle), etl.heads.classifier(n_classes=3))

    class Meddler(tf.compat.v1.train.SessionRunHook):
        def begin(self):
            frozen = tf.compat.v1.get_collection(collections.FROZEN)
            variable = next(v for v in frozen if v.op.name == "bn2/moving_variance")
            self.op = tf.compat.v1.assign(variable, variable * (1 + 2e-7))

        def after_run(self, run_context, run_values):
            run_context.session.run(self.op)

    model = estimator.Estimator(model_fn, str(tmp_path), params={})
    with pytest.raises(FrozenVariablesChangedError, match="1 frozen variables changed.*bn2/moving_variance"):
        model.train(random_batches(8), steps=1, hooks=[Meddler()])


def test_frozen_check_covers_all_that_the_plan_freezes(keras_h5):
    spec, _ = graph_of(keras_h5, "last_layers(3)", batch_norm="train")
    (hook,) = [hook for hook in spec.training_hooks if isinstance(hook, FrozenCheckHook)]
    moving = {"bn2/moving_mean", "bn2/moving_variance"} | keras_h5.partial["last_layers(3)"]
    assert set(hook._frozen) == set(keras_h5.values) - moving


def test_dropout_of_the_backbone_is_seeded_by_the_run(keras_h5, tmp_path):
    def final(name):
        model_fn = etl.make_model_fn(
            etl.backbone(keras_h5.handle), etl.heads.classifier(n_classes=3, dropout=0.3), etl.tuning.full()
        )
        model = estimator.Estimator(model_fn, str(tmp_path / name), estimator.RunConfig(tf_random_seed=7), params={})
        model.train(random_batches(8), steps=3)
        return {n: model.get_variable_value(n) for n in (*keras_h5.values, *HEAD)}

    first, second = final("a"), final("b")
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_learning_rate_in_params_wins(hub_module, tmp_path):
    def moved(params):
        model_fn = etl.make_model_fn(
            etl.backbone(hub_module.handle), etl.heads.classifier(n_classes=3), optimizer=etl.optimizers.sgd(0.1)
        )
        config = estimator.RunConfig(tf_random_seed=1)
        model = estimator.Estimator(model_fn, str(tmp_path / str(len(params))), config, params=params)
        model.train(random_batches(8), steps=1)
        return model.get_variable_value("head/logits/bias")

    np.testing.assert_allclose(moved({"learning_rate": 0.2}), 2 * moved({}), rtol=1e-5)


def test_a_bare_picture_tensor_is_the_only_feature(hub_module):
    model_fn = etl.make_model_fn(etl.backbone(hub_module.handle), etl.heads.classifier(n_classes=3))
    with tf.Graph().as_default():
        spec = model_fn(tf.zeros([2, 8, 8, 3]), None, "infer")
        assert spec.predictions["probabilities"].shape.as_list() == [2, 3]
        with pytest.raises(etl.errors.UserError, match="hold no 'image'"):
            model_fn({"picture": tf.zeros([2, 8, 8, 3])}, None, "infer")


PROGRAM_WITHOUT_V2_BEHAVIOR = """
import sys
import numpy as np
import tensorflow as tf
tf.compat.v1.disable_v2_behavior()
import estimator_tl as etl
handle, model_dir = sys.argv[1:]
backbone = etl.backbone(handle)
model_fn = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3), etl.tuning.last_layers(3))
images, labels = np.random.RandomState(0).rand(8, 8, 8, 3).astype('f'), np.arange(8) % 3

def input_fn():
    data = tf.data.Dataset.from_tensors((images, labels)).repeat()
    return tf.compat.v1.data.make_one_shot_iterator(data).get_next()

etl.estimator.Estimator(model_fn, model_dir, params={}).train(input_fn, steps=2)
"""


def test_frozen_batch_norm_in_a_program_without_v2_behavior(keras_h5, tmp_path):
    """There Keras would rebuild its old batch norm, whose frozen layers use and update batch statistics."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM_WITHOUT_V2_BEHAVIOR, keras_h5.handle, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, last = (tf.train.load_checkpoint(str(tmp_path / f"model.ckpt-{step}")) for step in (0, 2))
    for name, value in keras_h5.values.items():
        np.testing.assert_array_equal(first.get_tensor(name), value)
    moved = {n for n in keras_h5.values if not np.array_equal(first.get_tensor(n), last.get_tensor(n))}
    assert moved == keras_h5.partial["last_layers(3)"]
