"""The launcher's graphs, one a phase: they cost one phase, and train as the gated graph does."""

from __future__ import annotations

import re

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.spans import Span
from estimator_tl.tuning.hooks import FrozenCheckHook, PlanHook
from tests.checkpoints import checkpoint_values
from tests.runs import HEAD, moved, states, train
from tests.tiny import random_batches
from tests.tuning.structures import layered

PHASES = "phases(phase(frozen,3),phase(last_layers(3),6),full)"


def make_model_fn(source, tuning=PHASES, **kwargs):
    return etl.make_model_fn(
        backbone=etl.backbone(source.handle),
        tuning=etl.tuning.registry.make(tuning),
        head=etl.heads.classifier(n_classes=3),
        **{"show_plan": lambda text: None, **kwargs},
    )


def test_what_is_left_to_train_is_the_phases_that_steps_are_left_of():
    plan = etl.tuning.make_plan(layered(), etl.tuning.registry.make(PHASES))
    assert plan.parts(0, 20) == [(0, 3), (1, 6), (2, 20)]
    assert plan.parts(3, 5) == [(1, 5)]
    whole = etl.tuning.make_plan(layered(), etl.tuning.full())
    assert whole.parts(3, 7) == [(0, 7)]
    assert whole.parts(7, 7) == []


@pytest.mark.parametrize(("phase", "applied"), [(0, 2), (1, 5), (2, 8)])
def test_a_graph_moves_its_phase_only_and_has_slots_of_all(keras_h5, phase, applied):
    model_fn = make_model_fn(keras_h5, only_phase=phase)
    with tf.Graph().as_default() as graph:
        features, labels = tf.compat.v1.data.make_one_shot_iterator(random_batches(8)()).get_next()
        spec = model_fn(features, labels, "train")
        names = {v.op.name for v in tf.compat.v1.global_variables()}
    operations = graph.get_operations()
    assert len([op for op in operations if op.type == "ResourceApplyAdam"]) == applied
    gates = [op.name for op in operations if op.type in ("If", "StatelessIf") and "update" in op.name]
    assert not gates
    for variable in HEAD | keras_h5.trainable:
        assert {f"{variable}/Adam", f"{variable}/Adam_1"} <= names
    (check,) = [hook for hook in spec.training_hooks if isinstance(hook, FrozenCheckHook)]
    assert len(check._frozen) == len(keras_h5.values) - (applied - 2)


def test_the_gated_graph_has_a_gate_a_variable(keras_h5):
    model_fn = make_model_fn(keras_h5)
    with tf.Graph().as_default() as graph:
        features, labels = tf.compat.v1.data.make_one_shot_iterator(random_batches(8)()).get_next()
        model_fn(features, labels, "train")
    gates = [op for op in graph.get_operations() if op.type in ("If", "StatelessIf") and "update" in op.name]
    assert len(gates) == len(keras_h5.trainable)


@pytest.mark.parametrize("tuning", ["frozen", "last_layers(3)", "full"])
def test_a_plan_without_phases_is_one_span_with_a_plain_train_op(keras_h5, tuning):
    plan = etl.tuning.make_plan(etl.backbone(keras_h5.handle).structure, etl.tuning.registry.make(tuning))
    assert plan.spans == (Span(0, None, plan.trainable, tuning),)
    graphs = []
    for phase in (None, 0):
        texts = []
        model_fn = make_model_fn(keras_h5, tuning, only_phase=phase, show_plan=texts.append)
        with tf.Graph().as_default() as graph:
            features, labels = tf.compat.v1.data.make_one_shot_iterator(random_batches(8)()).get_next()
            spec = model_fn(features, labels, "train")
            for hook in spec.training_hooks:
                if isinstance(hook, PlanHook):
                    hook.begin()
        assert "phase" not in texts[0]
        graphs.append([(op.name, op.type) for op in graph.get_operations()])
        summaries = graph.get_collection(tf.compat.v1.GraphKeys.SUMMARIES)
        (rate,) = [summary.op.inputs[1] for summary in summaries if summary.op.name == "learning_rate"]
        assert rate.op.type == "Const"  # nothing but the schedule
    assert graphs[0] == graphs[1]
    types = [kind for _, kind in graphs[0]]
    assert types.count("ResourceApplyAdam") == len(HEAD) + len(plan.trainable)
    assert not [name for name, kind in graphs[0] if "estimator_tl_gate" in name or ("update" in name and "If" in kind)]


def test_the_gated_graph_and_those_of_phases_agree(keras_h5, pictures, tmp_path):
    train(tmp_path / "launched", keras_h5, pictures, 8, f"--tuning={PHASES}")
    data = etl.inputs.image_folder(str(pictures))
    source = etl.backbone(keras_h5.handle)
    model_fn = make_model_fn(keras_h5, learning_rate=0.01)
    config = estimator.RunConfig(tf_random_seed=0, save_checkpoints_steps=1)
    model = estimator.Estimator(model_fn, str(tmp_path / "gated"), config, params={})
    model.train(data.input_fn(source.image_spec, 7, training=True), max_steps=8)
    launched, gated = (checkpoint_values(tmp_path / name / "model.ckpt-8") for name in ("launched", "gated"))
    assert launched.keys() == gated.keys()
    for name, value in gated.items():
        np.testing.assert_allclose(launched[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    found = states(tmp_path / "launched", 8)
    top, everything = HEAD | keras_h5.partial["last_layers(3)"], HEAD | keras_h5.trainable
    steps = [moved(before, after, {*keras_h5.values, *HEAD}) for before, after in zip(found, found[1:])]
    assert steps == [HEAD] * 3 + [top] * 3 + [everything] * 2


def test_one_evaluation_schedule_whatever_the_phases(keras_h5, pictures, tmp_path, capsys):
    def evaluated():
        return [int(step) for step in re.findall(r"evaluation at step (\d+)", capsys.readouterr().err)]

    every = ["--save_checkpoints_steps=4", "--validation_fraction=0.2"]
    train(tmp_path / "phased", keras_h5, pictures, 10, f"--tuning={PHASES}", *every)
    assert evaluated() == [4, 8, 10]
    kept = sorted(int(p.stem.partition("-")[2]) for p in (tmp_path / "phased").glob("model.ckpt-*.index"))
    assert kept == [0, 3, 4, 6, 8, 10]
    train(tmp_path / "whole", keras_h5, pictures, 3, *every)
    assert evaluated() == [3]
    train(tmp_path / "whole", keras_h5, pictures, 9, *every)
    assert evaluated() == [4, 8, 9]
    train(tmp_path / "whole", keras_h5, pictures, 9, *every)
    assert evaluated() == [9]
