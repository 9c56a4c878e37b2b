"""What moves in runs of `train` on clusters of real processes, for each kind of source, bit for bit on checkpoints."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests import runs
from tests.contract.cells import STEPS, tuning_and_moves
from tests.launched import TASKS, cluster_of, equals_source, flags_of, saved_steps, slowly, state, train
from tests.runs import HEAD, moved
from tests.tiny import write_pictures

SOURCES = ("hub_module", "keras_h5", "tf1_module", "v1_checkpoint", "keras_checkpoint", "application")
POLICIES = ("frozen", "partial", "full", "phases")
SERVED_STEPS, PROBE = 400, 250


def marked(in_make_test, policies=POLICIES):
    return [
        pytest.param(*cell, id="-".join(cell), marks=() if cell in in_make_test else pytest.mark.full)
        for cell in itertools.product(SOURCES, policies)
    ]


@pytest.mark.parametrize(("name", "policy"), marked({("hub_module", "phases")}))
def test_on_parameter_servers(name, policy, request, pictures, tmp_path):
    """Asynchronous: which of the workers makes a step is left to chance, what it may move is not."""
    source = request.getfixturevalue(name)
    tuning, expected = tuning_and_moves(source, policy)
    if policy == "phases":
        tuning = f"linear_probe_then_full({PROBE})"
    flags = flags_of(
        tmp_path / "run",
        source,
        pictures,
        SERVED_STEPS,
        tuning=tuning,
        save_checkpoints_steps=50,
        log_norms=10,
        verbosity="info",
        **slowly(tmp_path / "go_on", 0.5),
    )
    with cluster_of(tmp_path / "logs", flags, TASKS["parameter_server"]) as cluster:
        cluster.start()
        cluster.wait_for_text("worker", 0, "step = ")  # the chief would else have made all steps by then
        (tmp_path / "go_on").touch()
        assert set(cluster.ends().values()) == {0}, cluster.report()
    steps = saved_steps(tmp_path / "run")
    assert steps[0] == 0
    # Each of the two tasks looks at the step once its own is made, while the other's is under way.
    assert SERVED_STEPS <= steps[-1] <= SERVED_STEPS + 3
    states = {step: state(tmp_path / "run", step, late=20) for step in steps}
    assert equals_source(states[0], source)
    assert moved(states[0], states[steps[-1]], source.values) == expected[-1]
    assert moved(states[0], states[steps[-1]], HEAD) == HEAD
    norms = runs.written(tmp_path / "run")
    assert norms  # of the chief's own steps, which may be few beside a fast worker's
    assert all(value > 0 for (tag, _), value in norms.items() if tag.endswith("/head"))
    if policy == "phases":
        early = [step for step in steps if 0 < step <= PROBE - 50]
        assert early
        for step in early:
            assert equals_source(states[step], source), step
            assert moved(states[0], states[step], HEAD) == HEAD


@pytest.mark.parametrize(("name", "policy"), marked(set(), (*POLICIES, "statistics")))
def test_under_multi_worker_mirrored(name, policy, request, pictures, tmp_path):
    source = request.getfixturevalue(name)
    if policy == "statistics":
        tuning, expected = "full", [frozenset(source.values)] * STEPS
    else:
        tuning, expected = tuning_and_moves(source, policy)
    batch_norm = "train" if policy == "statistics" else "inference"
    flags = flags_of(
        tmp_path / "run", source, pictures, STEPS, tuning=tuning, save_checkpoints_steps=1, batch_norm=batch_norm
    )
    train(tmp_path / "logs", flags, TASKS["multi_worker_mirrored"])
    assert saved_steps(tmp_path / "run") == list(range(STEPS + 1))
    states = [state(tmp_path / "run", step) for step in range(STEPS + 1)]
    assert equals_source(states[0], source)
    steps = list(zip(states, states[1:]))
    assert [moved(*step, source.values) for step in steps] == expected
    assert [moved(*step, HEAD) for step in steps] == [HEAD] * STEPS


@pytest.mark.full
@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
def test_statistics_under_multi_worker_mirrored_go_on(source, pictures, tmp_path):
    """With an evaluator, and a second run that goes on: it begins with the saved statistics, bit for bit."""
    run, tasks = tmp_path / "run", {**TASKS["multi_worker_mirrored"], "evaluator": 1}
    changes = {
        "tuning": "full",
        "batch_norm": "train",
        "exporters": "final",
        "validation_fraction": 0.2,
        "save_checkpoints_steps": 2,
    }
    train(tmp_path / "logs", flags_of(run, source, pictures, 4, **changes), tasks)
    before = state(run, 4)
    assert moved(state(run, 0), before, source.values) == frozenset(source.values)
    assert len(list((run / "export" / "final").iterdir())) == 1
    written = (run / "model.ckpt-4.index").stat().st_mtime_ns
    printed = train(tmp_path / "logs", flags_of(run, source, pictures, 6, **changes), tasks)
    assert (run / "model.ckpt-4.index").stat().st_mtime_ns > written  # by the session that had restored it
    again = state(run, 4)
    assert moved(before, again, before) == frozenset()
    assert saved_steps(run) == [0, 2, 4, 6]
    assert "evaluation at step 4" in printed["evaluator 0"]
    assert "evaluation at step 6" in printed["evaluator 0"]
    assert "evaluation at" not in printed["chief 0"]
    assert len(list((run / "export" / "final").iterdir())) == 2
    train(tmp_path / "logs", flags_of(run, source, pictures, 6, **changes), tasks, timeout=90)  # nothing is left to do
    assert saved_steps(run) == [0, 2, 4, 6]
    assert len(list((run / "export" / "final").iterdir())) == 2


@pytest.mark.parametrize("source", ["keras_h5"], indirect=True)
@pytest.mark.parametrize("optimizer", ["sgd(momentum=0.9)", pytest.param("adam", marks=pytest.mark.full)])
def test_two_workers_equal_one_process(source, optimizer, tmp_path):
    """The same global batches in the same order, so the same numbers but for the order of sums."""
    pictures = write_pictures(tmp_path / "pictures", count=40)
    changes = {
        "tuning": "full",
        "optimizer": optimizer,
        "batch_size": 32,
        "backbone_dropout": "false",
        "save_checkpoints_steps": 1,
        "log_norms": 2,
    }
    train(tmp_path / "logs", flags_of(tmp_path / "two", source, pictures, 5, **changes), TASKS["multi_worker_mirrored"])
    runs.train(tmp_path / "one", source, pictures, 5, *flags_of(tmp_path / "one", source, pictures, 5, **changes))
    for step in range(6):
        one, two = state(tmp_path / "one", step), state(tmp_path / "two", step)
        assert one.keys() == two.keys()
        assert len(moved(state(tmp_path / "one", 0), one, source.values)) == (len(source.trainable) if step else 0)
        for name, value in one.items():
            np.testing.assert_allclose(two[name], value, rtol=1e-5, atol=1e-6, err_msg=f"{name} at step {step}")
    norms = runs.written(tmp_path / "one")
    assert {step for _, step in norms} == {2, 4}
    assert all(value > 0 for value in norms.values())
    assert runs.written(tmp_path / "two") == pytest.approx(norms, rel=1e-4)
