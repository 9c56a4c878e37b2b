"""The audit: what moved, how far, and what the plan did not allow for."""

from __future__ import annotations

import numpy as np
import pytest

from estimator_tl import tuning
from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from estimator_tl.structure import SourceStructure, SourceVariable
from estimator_tl.tf_internals.files.checkpoints import assign
from estimator_tl.tuning.audit import Course, audit, audit_table, contradictions, state_of
from tests.checkpoints import checkpoint_values
from tests.runs import train

STRUCTURE = SourceStructure(
    "two layers",
    (
        SourceVariable("a/kernel", (2,), "float32", True, "a"),
        SourceVariable("b/kernel", (2,), "float32", True, "b"),
        SourceVariable("b/moving_mean", (2,), "float32", False, "b", "b/moving_mean"),
    ),
    ("a", "b"),
)
PHASED = "phases(phase(frozen, 2), phase(last_layers(1), 4), full)"
START = {"a/kernel": [3.0, 4.0], "b/kernel": [0.0, 2.0], "b/moving_mean": [1.0, 1.0]}


def state(step, **changes):
    values = {**START, **{name.replace("__", "/"): value for name, value in changes.items()}}
    return state_of(step, {name: np.array(value, np.float32) for name, value in values.items()})


def plan(policy, **kwargs):
    return tuning.make_plan(STRUCTURE, tuning.registry.make(policy), **kwargs)


def audited(plans, *checkpoints):
    return audit(Course(plans), state(0), checkpoints)


def test_distances_are_relative_norms():
    findings = audited([(plan("full"), None)], state(1, a__kernel=[3.0, 4.5], b__kernel=[0.0, 1.0]))
    assert [f.moved for f in findings] == [True, True, False]
    assert not contradictions(findings)
    lines = [" ".join(line.split()) for line in audit_table(findings).splitlines()]
    assert lines == ["group weights moved by statistics moved", "a 1 of 1 10%", "b 1 of 1 50% 0 of 1"]


@pytest.mark.parametrize(
    ("policy", "checkpoints", "expected"),
    [
        ("frozen", [state(3)], []),
        (
            "frozen",
            [state(3, a__kernel=[3, 4.1])],
            ["a/kernel moved between the source and step 3, where it is frozen"],
        ),
        ("frozen", [state(3), state(5, b__moving_mean=[1, 2])], ["b/moving_mean moved between step 3 and step 5"]),
        ("last_layers(1)", [state(3)], ["b/kernel did not move until step 3, though it was trained"]),
        (PHASED, [state(2), state(4, b__kernel=[1, 1])], []),
        (PHASED, [state(2, b__kernel=[1, 1])], ["b/kernel moved between the source and step 2"]),
        (PHASED, [state(3, b__kernel=[1, 1])], []),
        (PHASED, [state(4, b__kernel=[1, 1], a__kernel=[1, 1])], ["a/kernel moved between the source and step 4"]),
        (PHASED, [state(5, b__kernel=[1, 1], a__kernel=[1, 1])], []),
        # A part that was there and back again has moved where it was frozen.
        ("frozen", [state(1, a__kernel=[1, 1]), state(2)], ["a/kernel moved between the source and step 1"]),
    ],
)
def test_contradictions(policy, checkpoints, expected):
    found = contradictions(audited([(plan(policy), None)], *checkpoints))
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected))


def test_earlier_plans_count_until_they_ended():
    plans = [(plan("frozen"), 3), (plan("full"), None)]
    both = {"a__kernel": [1, 1], "b__kernel": [1, 1]}
    assert not contradictions(audited(plans, state(3), state(4, **both)))
    assert len(contradictions(audited(plans, state(2, **both), state(4, **both)))) == 2


def test_recalibrated_statistics_move_before_the_first_checkpoint_only():
    plans = [(plan("frozen", batch_norm="recalibrate"), None)]
    moving = {"b__moving_mean": [5, 5]}
    assert not contradictions(audited(plans, state(0, **moving), state(2, **moving)))
    assert len(contradictions(audited(plans, state(0, **moving), state(2, b__moving_mean=[6, 5])))) == 1


STATISTICS = ["b/gamma", "b/beta", "b/moving_mean", "b/moving_variance"]


@pytest.mark.parametrize("one_switch", [False, True])
@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        (("b/gamma", "b/beta"), ["b/moving_mean", "b/moving_variance"]),
        (("b/gamma", "b/beta", "b/moving_variance"), []),  # the mean of what is always 0 stays
    ],
)
def test_statistics_that_rest_contradict_batch_norm_in_training_mode(one_switch, moved, expected):
    variables = [
        SourceVariable(name, (2,), "float32", "moving" not in name, "b", None if one_switch else "b/gamma")
        for name in STATISTICS
    ]
    structure = SourceStructure("b", tuple(variables), None if one_switch else ("b",), one_training_switch=one_switch)
    course = Course([(tuning.make_plan(structure, tuning.full(), "train"), None)])
    start, last = ({n: np.full(2, n in names, np.float32) for n in STATISTICS} for names in ((), moved))
    text = "did not move until step 3, though its batch norm was in training mode"
    assert contradictions(audit(course, state_of(0, start), [state_of(3, last)])) == [
        f"{name} {text}" for name in expected
    ]


def tamper(model_dir, name):
    """Changes one bit of a variable in the newest checkpoint."""
    path = tf.train.latest_checkpoint(str(model_dir))
    values = checkpoint_values(path)
    values[name] = values[name].copy()
    values[name].flat[0] = np.nextafter(values[name].flat[0], np.float32(9))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {key: tf.Variable(tf.zeros(value.shape, value.dtype), name="v") for key, value in values.items()}
        session.run(tf.compat.v1.global_variables_initializer())
        assign(session, variables, values)
        tf.compat.v1.train.Saver(variables).save(session, path, write_state=False)


@pytest.mark.parametrize("source", ["hub_module", "keras_h5"], indirect=True)
def test_inspect_contradicts_a_run_that_somebody_wrote_to(source, pictures, tmp_path, capsys):
    train(tmp_path / "run", source, pictures, 2)
    assert main(["inspect", f"--model_dir={tmp_path / 'run'}"]) == 0
    printed = capsys.readouterr().out
    assert "audit of 3 checkpoints (steps 0, 1, 2) against the source" in printed
    assert printed.endswith("the checkpoints agree with the plan\n")
    name = next(name for name in source.values if name.endswith("conv2_bn/moving_variance") or name == "bn2/beta")
    tamper(tmp_path / "run", name)
    assert main(["inspect", f"--model_dir={tmp_path / 'run'}"]) == 2
    printed = capsys.readouterr()
    assert f"contradiction: {name} moved between step 1 and step 2, where it is frozen" in printed.out
    assert printed.err.startswith("error: 1 variables contradict the plan")


def test_inspect_refuses_a_source_that_was_changed(keras_h5, pictures, tmp_path, capsys):
    copy = tmp_path / "model.h5"
    with open(keras_h5.handle, "rb") as original:
        copy.write_bytes(original.read())
    flags = [f"--backbone={copy}"]
    train(tmp_path / "run", keras_h5, pictures, 1, *flags)
    from tests.tiny import tiny_keras_model

    tiny_keras_model(seed=9).save(str(copy))
    assert main(["inspect", f"--model_dir={tmp_path / 'run'}"]) == 2
    assert "has changed since the run began" in capsys.readouterr().err
