"""Tuning policies and the plan, without TensorFlow."""

from __future__ import annotations

import pytest

from estimator_tl import tuning
from estimator_tl.errors import UserError
from estimator_tl.structure import SourceStructure, SourceVariable
from estimator_tl.tuning.table import plan_table, summary
from tests.tuning.structures import B_BN, flat, layered


def select(spec, structure=None):
    return set(tuning.registry.make(spec).select(structure or layered()))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("frozen", set()),
        ("last_layers(2)", B_BN),
        ("last_layers(3)", B_BN | {"b/kernel"}),
        ("from_layer('b')", B_BN | {"b/kernel"}),
        ("from_layer(5)", B_BN),
        ("from_layer(-3)", B_BN | {"b/kernel"}),
        ("last_groups(1)", B_BN),
        ("last_groups(2)", B_BN | {"b/kernel"}),
        ("scopes('^a/', 'beta')", {"a/kernel", "a_bn/beta", "b_bn/beta"}),
        ("full", B_BN | {"b/kernel", "a/kernel", "a_bn/gamma", "a_bn/beta"}),
    ],
)
def test_selects(spec, expected):
    assert select(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("last_layers(1)", "selects nothing to train"),
        ("last_layers(7)", "selects every trainable variable.*full"),
        ("last_groups(99)", "selects every trainable variable"),
        ("from_layer('b_nb')", "did you mean 'b_bn'"),
        ("from_layer(7)", "7 layers"),
        ("scopes('a_bm')", "matches no trainable variable.*did you mean 'a_bn'"),
        ("scopes('(')", "not a regular expression"),
        ("scopes()", "at least one"),
        ("last_layers(0)", "at least 1"),
        ("last_layers(True)", "at least 1"),
        ("last_groups(-2)", "at least 1"),
        ("lastlayers(3)", "did you mean 'last_layers'"),
    ],
)
def test_refuses(spec, message):
    with pytest.raises(UserError, match=message):
        tuning.make_plan(layered(), tuning.registry.make(spec))


def test_sources_without_layers_list_their_groups_instead():
    with pytest.raises(UserError, match=r"last_groups\(n\).*a, a_bn, b, b_bn"):
        tuning.make_plan(flat(), tuning.last_layers(2))


def test_no_trainable_variables_cannot_be_trained():
    structure = SourceStructure("dead", (SourceVariable("x", (1,), "float32", False),))
    with pytest.raises(UserError, match="no trainable variables; use --tuning=frozen"):
        tuning.make_plan(structure, tuning.full())


def test_batch_norm_trains_only_where_unfrozen():
    plan = tuning.make_plan(layered(), tuning.last_layers(3), batch_norm="train")
    assert plan.train_batch_norm == {"b_bn/gamma"}
    assert "a_bn/moving_mean" in plan.frozen
    assert "b_bn/moving_mean" not in plan.frozen
    assert plan.call_mode(training=False).train_batch_norm == frozenset()


def test_batch_norm_of_a_frozen_source_never_trains():
    plan = tuning.make_plan(layered(), tuning.frozen(), batch_norm="train")
    assert plan.train_batch_norm == frozenset()
    assert set(plan.frozen) == {v.name for v in layered().variables}


def test_one_switch_refuses_partial_training_batch_norm():
    with pytest.raises(UserError, match="one training switch"):
        tuning.make_plan(flat(), tuning.last_groups(2), batch_norm="train")


def test_one_switch_trains_batch_norm_as_a_whole():
    plan = tuning.make_plan(flat(), tuning.full(), batch_norm="train")
    assert plan.call_mode(training=True).training
    assert not plan.call_mode(training=False).training
    assert plan.frozen == ()


def test_one_switch_refuses_dropout_beside_inference_batch_norm():
    with pytest.raises(UserError, match="dropout cannot be on"):
        tuning.make_plan(flat(), tuning.full(), backbone_dropout=True)


@pytest.mark.parametrize(
    ("policy", "asked", "expected"),
    [("frozen", None, False), ("frozen", True, True), ("full", None, True), ("full", False, False)],
)
def test_backbone_dropout_is_off_by_default_when_frozen(policy, asked, expected):
    plan = tuning.make_plan(layered(), tuning.registry.make(policy), backbone_dropout=asked)
    assert plan.call_mode(training=True).dropout is expected


def test_unknown_batch_norm_mode():
    with pytest.raises(UserError, match="batch_norm"):
        tuning.make_plan(layered(), tuning.full(), batch_norm="yes")


def test_table_shows_groups_and_summary():
    plan = tuning.make_plan(layered(), tuning.last_layers(3), batch_norm="train")
    lines = plan_table(plan, {"head/logits/kernel": 8}).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:-1]}
    assert rows["a"] == ["frozen", "1", "0", "12"]
    assert rows["a_bn"] == ["frozen", "4", "0", "16", "inference"]
    assert rows["b_bn"] == ["train", "4", "8", "16", "train"]
    assert rows["head/logits/kernel"] == ["train", "1", "8", "8"]
    assert lines[-1] == "trainable params: 28 || all params: 64 || trainable%: 43.7500"


def test_summary_has_the_known_form():
    variables = (SourceVariable("body", (2_257_984,), "float32", True),)
    plan = tuning.make_plan(SourceStructure("s", variables), tuning.frozen())
    expected = "trainable params: 6,405 || all params: 2,264,389 || trainable%: 0.2829"
    assert summary(plan, {"head": 6405}) == expected
