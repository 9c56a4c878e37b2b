"""Phased policies as pure functions of the step, without TensorFlow."""

from __future__ import annotations

import dataclasses

import pytest

from estimator_tl import tuning
from estimator_tl.errors import UserError
from estimator_tl.spans import Interval, Span
from estimator_tl.tuning.table import plan_table
from tests.tuning.structures import B_BN, flat, layered

ALL = B_BN | {"b/kernel", "a/kernel", "a_bn/gamma", "a_bn/beta"}


def spans(spec, structure=None):
    """[(start, end, trained names)] of a spec."""
    placed = tuning.registry.make(spec).spans(structure or layered())
    return [(span.start, span.end, set(span.trainable)) for span in placed]


def test_linear_probe_then_full():
    assert spans("linear_probe_then_full(30)") == [(0, 30, set()), (30, None, ALL)]


def test_phases_hold_until_their_step():
    found = spans("phases(phase(frozen, until=5), phase(last_layers(3), 9), phase(full))")
    assert found == [(0, 5, set()), (5, 9, B_BN | {"b/kernel"}), (9, None, ALL)]


def test_a_bare_policy_is_a_phase():
    assert spans("phases(phase(frozen, 5), full)") == [(0, 5, set()), (5, None, ALL)]


def test_gradual_by_layer_adds_one_layer_with_weights_at_a_time():
    assert spans("gradual(10)") == [
        (0, 10, set()),
        (10, 20, B_BN),
        (20, 30, B_BN | {"b/kernel"}),
        (30, 40, B_BN | {"b/kernel", "a_bn/gamma", "a_bn/beta"}),
        (40, None, ALL),
    ]


def test_gradual_by_group_works_without_layers():
    assert spans("gradual(10, by='group', size=2, head_steps=0)", flat()) == [
        (0, 10, B_BN | {"b/kernel"}),
        (10, None, ALL),
    ]


def test_gradual_by_expressions_stops_with_the_last():
    assert spans("gradual(10, by=['^b', '^a_bn'])") == [
        (0, 10, set()),
        (10, 20, B_BN | {"b/kernel"}),
        (20, None, B_BN | {"b/kernel", "a_bn/gamma", "a_bn/beta"}),
    ]


def test_gradual_decay_lowers_the_rate_at_each_unfreezing():
    placed = tuning.gradual(10, decay=0.5).spans(layered())
    assert [span.multiplier for span in placed] == [1.0, 1.0, 0.5, 0.25, 0.125]


def test_a_spec_reads_back_as_itself():
    for spec in (
        "linear_probe_then_full(30)",
        "linear_probe_then_full(30, multiplier=0.1)",
        "phases(phase(frozen, until=5), phase(last_layers(3), until=9, learning_rate='cosine(1e-3)'), "
        "phase(full, multiplier=0.5, restart=True))",
        "gradual(10, by=['^b'], size=1, head_steps=10, decay=0.5)",
    ):
        assert str(tuning.registry.make(spec)) == spec


def test_when_a_variable_is_trained():
    policy = tuning.phases(
        tuning.phase(tuning.frozen(), 5),
        tuning.phase(tuning.last_layers(3), 9),
        tuning.phase(tuning.full(), 12),
        tuning.phase(tuning.from_layer("b_bn")),
    )
    plan = tuning.make_plan(layered(), policy)
    assert plan.active_steps("b_bn/beta") == [Interval(5)]
    assert plan.active_steps("b/kernel") == [Interval(5, 12)]
    assert plan.active_steps("a/kernel") == [Interval(9, 12)]
    assert plan.active_steps("a_bn/moving_mean") == []


def test_a_variable_may_rest_and_come_back():
    policy = tuning.phases(tuning.phase(tuning.full(), 3), tuning.phase(tuning.frozen(), 7), tuning.full())
    assert tuning.make_plan(layered(), policy).active_steps("a/kernel") == [Interval(0, 3), Interval(7)]


@pytest.mark.parametrize("spec", ["frozen", "last_layers(3)", "full"])
def test_a_policy_without_phases_holds_in_one_span(spec):
    plan = tuning.make_plan(layered(), tuning.registry.make(spec))
    assert plan.spans == (Span(trainable=plan.trainable, policy=spec),)
    assert all(plan.active_steps(name) == [Interval()] for name in plan.trainable)


def test_the_plan_is_the_union():
    plan = tuning.make_plan(layered(), tuning.registry.make("phases(phase(frozen, 5), last_layers(3))"))
    assert plan.trainable == B_BN | {"b/kernel"}
    assert "a/kernel" in plan.frozen
    assert plan.active_steps("b/kernel") == [Interval(5)]
    assert not plan.dropout  # one graph serves the frozen phase too
    assert tuning.make_plan(layered(), tuning.full()).active_steps("b/kernel") == [Interval()]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("phases(full)", "at least two phases"),
        ("phases(frozen, full)", "needs until="),
        ("phases(phase(frozen, 5), phase(last_layers(3), 5), full)", "out of order.*step 5"),
        ("phases(phase(frozen, 5), phase(full, 9))", "the last phase lasts until training ends"),
        ("phases(phase(frozen, 5), phase(scopes('nope')))", "matches no trainable variable"),
        ("phases(phase(frozen, 5), phase(last_layers(1)))", r"phase\(last_layers\(1\)\) selects nothing"),
        ("phases(phase(frozen, 5), phase(last_layers(7)))", "selects every trainable variable"),
        ("phases(phase(frozen, 0), full)", "until=0 must be a whole number"),
        ("phases(phase(frozen, 5, multiplier=0), full)", "multiplier=0"),
        ("phases(phase(frozen, 5, restart=True, learning_rate=0.1), full)", "leave restart out"),
        ("phases(phase(gradual(3), 5), full)", "without phases"),
        ("phases(phase(7, 5), full)", "without phases"),
        ("phase(full)", r"a part of phases\(...\)"),
        ("linear_probe_then_full(0)", "steps=0"),
        ("linear_probe_then_full(2.5)", "steps=2.5"),
        ("gradual(10, by='block')", "'layer', 'group' or a list"),
        ("gradual(10, by=['^b', '_bn'])", "groups overlap: b_bn/gamma is in '\\^b' and in '_bn'"),
        ("gradual(10, by=['^b', 'nope'])", "matches no trainable variable"),
        ("gradual(10, by=['('])", "not a regular expression"),
        ("gradual(10, by=['^b'], size=2)", "leave it out"),
        ("gradual(10, decay=2)", "decay=2"),
        ("gradual(10, head_steps=-1)", "head_steps=-1"),
    ],
)
def test_refuses(spec, message):
    with pytest.raises(UserError, match=message):
        tuning.make_plan(layered(), tuning.registry.make(spec))


def test_by_layer_needs_layers():
    with pytest.raises(UserError, match="use by='group'"):
        tuning.make_plan(flat(), tuning.gradual(10))


def test_batch_norm_in_training_mode_is_refused():
    with pytest.raises(UserError, match="not unfrozen yet"):
        tuning.make_plan(layered(), tuning.linear_probe_then_full(3), batch_norm="train")


def test_the_table_says_when_each_group_trains():
    policy = tuning.registry.make("phases(phase(frozen, 5), phase(last_layers(3), 9, multiplier=0.5), last_layers(2))")
    text = plan_table(tuning.make_plan(layered(), policy), {"head/kernel": 10})
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "b steps 5 to 8 1 12 12" in lines
    assert "b_bn from step 5 4 8 16 inference" in lines
    assert lines[-4:] == [
        "phase 1, steps 0 to 4: frozen, trains 10",
        "phase 2, steps 5 to 8: last_layers(3), trains 30, learning rate times 0.5",
        "phase 3, from step 9: last_layers(2), trains 18",
        "trainable params: 30 || all params: 66 || trainable%: 45.4545",
    ]


@pytest.mark.parametrize("spec", ["full", "last_layers(1)", "linear_probe_then_full(3)", "gradual(3)"])
def test_a_source_without_trainable_variables_can_only_be_frozen(spec):
    variables = tuple(dataclasses.replace(v, trainable=False) for v in layered().variables)
    structure = dataclasses.replace(layered(), variables=variables)
    with pytest.raises(UserError, match="has no trainable variables; use --tuning=frozen"):
        tuning.make_plan(structure, tuning.registry.make(spec))
    assert tuning.make_plan(structure, tuning.frozen()).frozen_whole


def test_a_plan_after_another_counts_the_steps_of_both():
    """What was trained before goes on with its slots; what joins begins with its first step."""
    first = tuning.make_plan(layered(), tuning.last_layers(2))
    second = tuning.make_plan(layered(), tuning.full())
    joined = second.after(10, first, keeps_slots=True)
    (old, *_), (new, *_) = sorted(first.trainable), sorted(second.trainable - first.trainable)
    assert joined.active_steps(old) == [Interval()]
    assert joined.active_steps(new) == [Interval(10)]
    assert second.after(10, first, keeps_slots=False).active_steps(old) == [Interval(10)]
    rested = second.after(20, tuning.make_plan(layered(), tuning.frozen()).after(10, first, True), keeps_slots=True)
    assert rested.active_steps(old) == [Interval(20)]
    phased = tuning.make_plan(layered(), tuning.registry.make("phases(phase(frozen, 15), full)"))
    assert phased.after(10, second, True).active_steps(old) == [Interval(0, 10), Interval(15)]
