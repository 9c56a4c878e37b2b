"""Clusters of `train` whose tasks are killed, told to stop, or never come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from estimator_tl.compat import tf
from tests.launched import COMMAND, TASKS, cluster_of, flags_of, saved_steps, slowly, state, train

ROOT = Path(__file__).resolve().parents[2]
LOCAL_CLUSTER = ROOT / "scripts" / "local_cluster"
STOPPED, STALLED = 143, 138
FOR_EVER = 10_000_000


def training(cluster):
    """Waits until all tasks that train do."""
    for job, index in cluster.tasks:
        if job in ("chief", "worker"):
            cluster.wait_for_text(job, index, "step = ")


def check_checkpoints(model_dir, total, late=0):
    """The last checkpoint is that of the end, and what the list of checkpoints names is there."""
    steps = saved_steps(model_dir)
    assert total <= steps[-1] <= total + late
    listed = tf.train.get_checkpoint_state(str(model_dir))
    assert listed.model_checkpoint_path.endswith(f"model.ckpt-{steps[-1]}")
    paths = listed.all_model_checkpoint_paths
    assert [int(path.rpartition("-")[2]) for path in paths] == steps[-len(paths) :]
    for step in steps:
        state(model_dir, step, late=20 if late else 0)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("parameter_server", signal.SIGTERM),
        pytest.param("parameter_server", signal.SIGUSR1, marks=pytest.mark.full),
        pytest.param("multi_worker_mirrored", signal.SIGTERM, marks=pytest.mark.full),
        pytest.param("multi_worker_mirrored", signal.SIGUSR1, marks=pytest.mark.full),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_signal_saves_and_the_run_goes_on(kind, sent, keras_h5, pictures, tmp_path):
    run, tasks = tmp_path / "run", {**TASKS[kind], "evaluator": 1}
    changes = {"validation_fraction": 0.2, "save_checkpoints_steps": FOR_EVER, "tuning": "full"}
    flags = flags_of(run, keras_h5, pictures, FOR_EVER, verbosity="info", **changes)
    with cluster_of(tmp_path / "logs", flags, tasks) as cluster:
        cluster.start()
        training(cluster)
        cluster.wait_for_text("evaluator", 0, "evaluation at step 0")
        if kind == "parameter_server":
            cluster.signal(sent, "ps")  # which the chief's checkpoint needs
            time.sleep(2)
        cluster.signal(sent)
        assert set(cluster.ends(timeout=40).items()) == {(task.name, STOPPED) for task in cluster.tasks.values()}
        first, last = saved_steps(run)
        assert (first, last > 0) == (0, True)
        reached = int(state(run, last, late=1)["global_step"])  # another worker's step may end while it is written
        assert f"stopped at step {reached}: {sent.name}" in cluster.text("chief")
    printed = train(tmp_path / "again", flags_of(run, keras_h5, pictures, reached + 20, **changes), tasks)
    assert f"from step {reached} to {reached + 20}" in printed["chief 0"]
    check_checkpoints(run, reached + 20, late=1)


@pytest.mark.full
def test_a_signal_before_all_are_there_ends_them_soon(keras_h5, pictures, tmp_path):
    """The chief waits for a parameter server within TensorFlow, the worker for the chief's variables."""
    flags = flags_of(tmp_path / "run", keras_h5, pictures, FOR_EVER)
    with cluster_of(tmp_path / "logs", flags, TASKS["parameter_server"]) as cluster:
        cluster.start("chief")
        cluster.start("worker")
        cluster.wait_for_text("worker", 0, "waits for the chief")
        cluster.wait_for_text("chief", 0, "trainable params")
        time.sleep(5)
        cluster.signal(signal.SIGTERM)
        cluster.tasks.pop(("ps", 0))
        assert set(cluster.ends(timeout=20).values()) == {STOPPED}, cluster.report()


@pytest.mark.full
@pytest.mark.parametrize("job", ["chief", "worker", "ps", "evaluator"])
def test_a_killed_task_comes_back_on_parameter_servers(job, keras_h5, pictures, tmp_path):
    run, go_on, total = tmp_path / "run", tmp_path / "go_on", 250
    flags = flags_of(
        run,
        keras_h5,
        pictures,
        total,
        validation_fraction=0.2,
        save_checkpoints_steps=10,
        keep_checkpoint_max=3,
        exporters="final",
        verbosity="info",
        **slowly(go_on, 0.2),
    )
    with cluster_of(tmp_path / "logs", flags, {**TASKS["parameter_server"], "evaluator": 1}) as cluster:
        cluster.start()
        training(cluster)
        cluster.wait_for_text("evaluator", 0, "evaluation at step")
        cluster.wait_until(lambda: saved_steps(run)[-1] >= 10, "a checkpoint")
        cluster.kill(job, 0)
        killed_at, evaluated = saved_steps(run)[-1], cluster.text("evaluator").count("evaluation at step")
        cluster.start(job, 0)
        if job in ("chief", "worker"):
            cluster.wait_for_text(job, 0, "INFO:tensorflow:loss = ", times=2)
        elif job == "evaluator":
            cluster.wait_for_text(job, 0, "evaluation at step", times=evaluated + 1)
        cluster.wait_until(lambda: saved_steps(run)[-1] > killed_at, "a checkpoint after the restart")
        assert saved_steps(run)[-1] < total
        go_on.touch()
        assert set(cluster.ends().values()) == {0}, cluster.report()
        assert f"evaluation at step {saved_steps(run)[-1]}" in cluster.text("evaluator")
    check_checkpoints(run, total, late=1)
    assert len(saved_steps(run)) == 3
    assert len(list((run / "export" / "final").iterdir())) == 1


def tasks_of(launcher):
    """The processes of a launcher's tasks, by (job, index)."""
    found = {}
    for pid in map(int, Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()):
        for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if item.startswith(b"TF_CONFIG="):
                task = json.loads(item.partition(b"=")[2])["task"]
                found[task["type"], task["index"]] = pid
    return found


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the tasks in /proc")
def test_a_gang_starts_again_and_ends_as_if_nothing_had_happened(keras_h5, pictures, tmp_path):
    go_on, total = tmp_path / "go_on", 40
    changes = {
        "tuning": "full",
        "batch_norm": "train",
        "backbone_dropout": "false",  # what Keras draws follows from how often, not from the step
        "deterministic": "true",
        "save_checkpoints_steps": 10,
        "distribution": "multi_worker_mirrored",
        **slowly(go_on, 0.2),
    }
    line = [str(LOCAL_CLUSTER), "--worker=1", "--", *COMMAND]
    killed = tmp_path / "killed"
    launcher = subprocess.Popen(
        [*line, *flags_of(killed, keras_h5, pictures, total, **changes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    try:
        deadline = time.monotonic() + 120
        while max(saved_steps(killed), default=0) < 10:
            assert time.monotonic() < deadline
            assert launcher.poll() is None, launcher.communicate()[0]
            time.sleep(0.05)
        os.kill(tasks_of(launcher)["worker", 0], signal.SIGKILL)
        go_on.touch()
        printed = launcher.communicate(timeout=120)[0]
    finally:
        launcher.kill()
    assert launcher.returncode == 0, printed
    assert "worker 0 left with 137; all that train start again" in printed
    train(
        tmp_path / "logs", flags_of(tmp_path / "whole", keras_h5, pictures, total, **changes), {"chief": 1, "worker": 1}
    )
    for folder in ("killed", "whole"):
        assert saved_steps(tmp_path / folder) == [0, 10, 20, 30, 40]
    expected, found = state(tmp_path / "whole", total), state(killed, total)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if "moving" in name:  # the mean of what each replica has, which it begins with once it starts again
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


IMPATIENT = {"stall_minutes": 0.2, "cluster_wait_secs": 5}


@pytest.mark.full
def test_a_server_that_never_comes_back_ends_all(keras_h5, pictures, tmp_path):
    flags = flags_of(
        tmp_path / "run", keras_h5, pictures, FOR_EVER, validation_fraction=0.2, verbosity="info", **IMPATIENT
    )
    with cluster_of(tmp_path / "logs", flags, {**TASKS["parameter_server"], "evaluator": 1}) as cluster:
        cluster.start()
        training(cluster)
        cluster.kill("ps", 0)
        ends = cluster.ends(timeout=60)
        assert ends == {"chief 0": STALLED, "worker 0": STALLED, "evaluator 0": STALLED, "ps 0": -signal.SIGKILL}


@pytest.mark.full
def test_a_chief_that_never_comes_ends_all(keras_h5, pictures, tmp_path):
    flags = flags_of(tmp_path / "run", keras_h5, pictures, FOR_EVER, validation_fraction=0.2, **IMPATIENT)
    with cluster_of(tmp_path / "logs", flags, {**TASKS["parameter_server"], "evaluator": 1}) as cluster:
        others = [key for key in cluster.tasks if key[0] != "chief"]
        for key in others:
            cluster.start(*key)
        cluster.tasks.pop(("chief", 0))
        assert set(cluster.ends(timeout=40).values()) == {STALLED}
        for key in others:
            assert "the chief did not appear within 5 s" in cluster.text(*key)


@pytest.mark.full
def test_a_chief_that_is_gone_ends_all(keras_h5, pictures, tmp_path):
    flags = flags_of(
        tmp_path / "run", keras_h5, pictures, FOR_EVER, validation_fraction=0.2, verbosity="info", **IMPATIENT
    )
    with cluster_of(tmp_path / "logs", flags, {**TASKS["parameter_server"], "evaluator": 1}) as cluster:
        cluster.start()
        training(cluster)
        cluster.kill("chief", 0)
        ends = cluster.ends(timeout=60)
        assert ends == {"chief 0": -signal.SIGKILL, "worker 0": STALLED, "evaluator 0": STALLED, "ps 0": STALLED}


@pytest.mark.full
def test_a_worker_that_comes_too_late_leaves(keras_h5, pictures, tmp_path):
    """It waits for variables on servers that have left, as the run has ended."""
    run, go_on = tmp_path / "run", tmp_path / "go_on"
    flags = flags_of(run, keras_h5, pictures, 40, verbosity="info", **slowly(go_on, 0.2))
    with cluster_of(tmp_path / "logs", flags, TASKS["parameter_server"]) as cluster:
        cluster.start("chief")
        cluster.start("ps")
        cluster.start("worker")
        cluster.wait_for_text("worker", 0, "Calling model_fn")
        os.kill(cluster.tasks["worker", 0].process.pid, signal.SIGSTOP)
        go_on.touch()
        cluster.wait_until(
            lambda: cluster.tasks["chief", 0].status == 0 and cluster.tasks["ps", 0].status == 0, "the end of the run"
        )
        os.kill(cluster.tasks["worker", 0].process.pid, signal.SIGCONT)
        assert set(cluster.ends(timeout=60).values()) == {0}, cluster.report()
    check_checkpoints(run, 40)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["parameter_server", "multi_worker_mirrored"])
def test_numbers_that_are_no_longer_finite_end_a_cluster(kind, keras_h5, pictures, tmp_path):
    run = tmp_path / "run"
    wild = {"tuning": "full", "optimizer": "sgd", "learning_rate": 1e30}
    flags = flags_of(run, keras_h5, pictures, 500, save_checkpoints_steps=500, **wild)
    with cluster_of(tmp_path / "logs", flags, TASKS[kind]) as cluster:
        cluster.start()
        ended = cluster.ends(timeout=60)
        assert ended["chief 0"] == 2, cluster.report()
        error = cluster.text("chief")
    assert "error: training failed at step" in error
    assert "in layer conv1" in error or kind == "parameter_server"  # where another worker may have been first
    assert saved_steps(run) == [0]
