"""Graphs for TPUs, as far as they go without one: built for eight cores, and compiled by XLA for the CPU."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from tests import tpus
from tests.checkpoints import checkpoint_values
from tests.runs import HEAD, moved

SOURCES = ("hub_module", "keras_h5", "tf1_module", "v1_checkpoint")
SGD = "sgd(0.05)"


def make_model_fn(source, tuning, optimizer="adam"):
    return etl.make_model_fn(
        etl.backbone(source.handle),
        etl.heads.classifier(n_classes=3),
        etl.tuning.registry.make(tuning),
        etl.optimizers.registry.make(optimizer),
        backbone_dropout=False,  # XLA draws other numbers
        train_steps=20,
        show_plan=lambda text: None,
    )


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("policy", ["frozen", "partial", "full"])
def test_eight_cores_sum_the_gradients_of_what_trains(name, policy, request, tmp_path, monkeypatch):
    source = request.getfixturevalue(name)
    tuning, top = next(iter(source.partial.items()))
    tuning = tuning if policy == "partial" else policy
    trained = len({"frozen": (), "partial": top, "full": source.trainable}[policy]) + len(HEAD)
    tpus.describe(monkeypatch)
    made = tpus.estimator_for(make_model_fn(source, tuning), tmp_path)
    with tf.Graph().as_default() as graph, tpus.session() as session:
        spec = tpus.build(made, tpus.batches(source.size))
        ops = tpus.ops_inside(graph)
        assert ops["CrossReplicaSum"] == ops["ResourceApplyAdam"] == trained
        assert [s.op.name for s in graph.get_collection("summaries")] == ["loss"]  # the Estimator's own
        written = [op.inputs[3] for op in graph.get_operations() if op.type == "WriteSummary"]
        assert b"learning_rate" in [tf.get_static_value(tag) for tag in written]  # by host_call
        scaffold = spec.scaffold or tf.compat.v1.train.Scaffold()
        scaffold.finalize()
        session.run(scaffold.init_op)
        if scaffold.init_fn:
            scaffold.init_fn(session)
        values = session.run({v.op.name: v for v in tf.compat.v1.global_variables()})
    for variable, value in source.values.items():
        np.testing.assert_array_equal(values[variable], value, err_msg=f"step 0 of {variable}")


def test_evaluation_for_a_tpu_hands_its_metrics_to_the_host(keras_h5, tmp_path, monkeypatch):
    tpus.describe(monkeypatch)
    made = tpus.estimator_for(make_model_fn(keras_h5, "full"), tmp_path)
    with tf.Graph().as_default():
        spec = tpus.build(made, tpus.batches(keras_h5.size), "eval")
    with tf.Graph().as_default():
        data = tpus.batches(keras_h5.size)({"batch_size": 8})
        features, labels = tf.compat.v1.data.make_one_shot_iterator(data).get_next()
        tf.compat.v1.train.get_or_create_global_step()
        elsewhere = make_model_fn(keras_h5, "full")(features, labels, "eval", {}, estimator.RunConfig())
    assert set(spec.eval_metric_ops) == set(elsewhere.eval_metric_ops) > {"accuracy", "average_loss"}


@pytest.mark.parametrize("optimizer", ["adam", "sgd(momentum=0.9)"])
def test_variables_have_the_names_that_they_have_elsewhere(keras_h5, optimizer, tmp_path, monkeypatch):
    """A run may go on on another device."""
    tpus.describe(monkeypatch)
    model_fn = make_model_fn(keras_h5, "full", optimizer)
    found = []
    with tf.Graph().as_default():
        tpus.build(tpus.estimator_for(model_fn, tmp_path), tpus.batches(keras_h5.size))
        found.append({v.op.name for v in tf.compat.v1.global_variables()})
    with tf.Graph().as_default():
        data = tpus.batches(keras_h5.size)({"batch_size": 8})
        features, labels = tf.compat.v1.data.make_one_shot_iterator(data).get_next()
        tf.compat.v1.train.get_or_create_global_step()
        model_fn(features, labels, "train", {}, estimator.RunConfig())
        found.append({v.op.name for v in tf.compat.v1.global_variables()})
    assert found[0] - {"iterations_per_loop"} == found[1]


class Context:
    num_replicas = 1


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "keras_h5" else pytest.mark.full) for name in SOURCES]
)
@pytest.mark.parametrize(
    "policy", [pytest.param("partial", marks=pytest.mark.full), "phases(phase(frozen, 1), phase(full))"]
)
def test_a_compiled_step_is_the_step_of_an_estimator(name, policy, request, tmp_path):
    source = request.getfixturevalue(name)
    policy = next(iter(source.partial)) if policy == "partial" else policy
    model_fn = make_model_fn(source, policy, SGD)

    def data():
        return tpus.batches(source.size)({"batch_size": 8})

    plain = estimator.Estimator(model_fn, str(tmp_path), estimator.RunConfig(tf_random_seed=1), params={})
    plain.train(data, max_steps=3)
    first = checkpoint_values(tmp_path / "model.ckpt-0")
    expected = {name: plain.get_variable_value(name) for name in (*source.values, *HEAD)}

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.set_random_seed(1)
        step = tf.compat.v1.train.get_or_create_global_step()
        features, labels = tf.compat.v1.data.make_one_shot_iterator(data()).get_next()
        specs = []

        def compute(image, labels):
            params = {"use_tpu": True, "context": Context}
            specs.append(model_fn({"image": image}, labels, "train", params, estimator.RunConfig()))
            with tf.control_dependencies([specs[0].train_op]):
                return tf.identity(specs[0].loss)

        loss = tf.xla.experimental.compile(compute, [features["image"], labels])
        scaffold = specs[0].scaffold_fn() if specs[0].scaffold_fn else tf.compat.v1.train.Scaffold()
        scaffold.finalize()
        session.run(scaffold.init_op)
        if scaffold.init_fn:
            scaffold.init_fn(session)
        variables = {v.op.name: v for v in tf.compat.v1.global_variables()}
        for name in HEAD:  # the seeds of their initializers depend on what else a graph has
            variables[name].load(first[name], session)
        for _ in range(3):
            session.run(loss)
        assert session.run(step) == 3
        values = session.run({name: variables[name] for name in expected})
    assert moved(first, values, expected) == moved(first, expected, expected)
    for variable, value in expected.items():
        np.testing.assert_allclose(values[variable], value, rtol=1e-4, atol=1e-6, err_msg=variable)
