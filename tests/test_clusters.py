"""Estimator on real clusters: several processes on loopback, run as users run their programs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from estimator_tl.compat import tf
from tests.cluster import Cluster, free_ports

PROGRAM = Path(__file__).parent / "legacy" / "programs" / "cluster_train.py"
WEIGHTS = [[1.0], [-2.0], [0.5]]  # what the program's data was made with


def first_steps(text):
    """The global step at which each life of a task began to train."""
    return [int(step) for step in re.findall(r"TRAINING from global step (\d+)", text)]


def check_trained(model_dir, steps, at_most):
    """The last checkpoint is at the end and holds the right kernel; there is one export, and it predicts."""
    checkpoint = tf.train.latest_checkpoint(str(model_dir))
    step = tf.train.load_variable(checkpoint, "global_step")
    assert steps <= step <= at_most
    kernel = tf.train.load_variable(checkpoint, "kernel")
    np.testing.assert_allclose(kernel, WEIGHTS, atol=1e-3)
    (export,) = (model_dir / "export").iterdir()
    served = tf.saved_model.load(str(export)).signatures["serving_default"]
    np.testing.assert_allclose(served(tf.constant([[1.0, 1.0, 1.0]]))["y"], [[-0.5]], atol=3e-3)


@pytest.mark.full
def test_parameter_server_cluster_survives_the_death_of_a_worker(tmp_path):
    model_dir, go_on = tmp_path / "run", tmp_path / "go_on"
    program = [str(PROGRAM), f"--model_dir={model_dir}", "--train_steps=600", f"--half_until={go_on}"]
    with Cluster(tmp_path / "logs", program, chief=1, worker=2, ps=1, evaluator=1) as cluster:
        cluster.start("ps")
        cluster.start("chief")
        cluster.wait_for_text("chief", 0, "TRAINING")  # a worker that comes too early sleeps for 30 s
        cluster.start("worker")
        cluster.start("evaluator")
        cluster.wait_for_text("worker", 1, "TRAINING")
        cluster.kill("worker", 1, signal.SIGKILL)
        cluster.start("worker", 1)
        cluster.wait_for_text("worker", 1, "TRAINING", times=2)
        cluster.wait_for_text("evaluator", 0, "Saving dict for global step")
        go_on.touch()
        cluster.finish()

        before, after = first_steps(cluster.text("worker", 1))
        assert 0 < before < after <= 301 + 2
        evaluated = [int(s) for s in re.findall(r"Saving dict for global step (\d+)", cluster.text("evaluator"))]
        assert evaluated[-1] >= 600
        assert cluster.text("chief").count("EXPORTED") == 1
        assert "EXPORTED" not in cluster.text("worker", 0) + cluster.text("worker", 1) + cluster.text("evaluator")
        check_trained(model_dir, 600, at_most=602)  # asynchronous: each worker may finish the step that it is in


@pytest.mark.parametrize(
    ("strategy", "tasks"),
    [
        ("multi_worker_mirrored", {"chief": 1, "worker": 1}),
        pytest.param("parameter_server", {"chief": 1, "worker": 1, "ps": 1}, marks=pytest.mark.full),
        pytest.param("multi_worker_mirrored", {"worker": 2, "evaluator": 1}, marks=pytest.mark.full),
    ],
)
def test_a_strategy_over_a_cluster(tmp_path, strategy, tasks):
    program = [str(PROGRAM), f"--model_dir={tmp_path / 'run'}", f"--strategy={strategy}", "--train_steps=200"]
    with Cluster(tmp_path / "logs", program, evaluator_in_cluster=True, **tasks) as cluster:
        cluster.start()
        cluster.finish()
        texts = {task.name: task.text for task in cluster.tasks.values()}
        chief = "chief 0" if "chief" in tasks else "worker 0"
        assert [name for name, text in texts.items() if "EXPORTED" in text] == [chief]
        for name, text in texts.items():
            if name.startswith(("chief", "worker")):
                assert len(first_steps(text)) == 1, name
        synchronous = strategy == "multi_worker_mirrored"
        check_trained(tmp_path / "run", 200, at_most=200 if synchronous else 202)
        if "evaluator" in tasks:
            assert "Saving dict for global step 200" in texts["evaluator 0"]


SLEEPER = "import sys, time; print('up', flush=True); time.sleep(600)"


def test_the_harness_reports_and_leaves_nothing_behind(tmp_path):
    running = []
    with Cluster(tmp_path, ["-c", SLEEPER], command=[sys.executable], worker=2, ps=1) as cluster:
        cluster.start()
        for index in range(2):
            cluster.wait_for_text("worker", index, "up")
        running = [task.process.pid for task in cluster.tasks.values()]
        assert len(set(running)) == 3
        cluster.kill("worker", 0)
        assert cluster.tasks["worker", 0].status == -signal.SIGKILL
        cluster.start("worker", 0)
        cluster.wait_for_text("worker", 0, "up", times=2)
        running.append(cluster.tasks["worker", 0].process.pid)
        with pytest.raises(
            AssertionError, match=r"(?s)worker 1 to print 'down' did not happen.*worker 1, status None\nup"
        ):
            cluster.wait_for_text("worker", 1, "down", timeout=0.3)
    for pid in running:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_harness_fails_early_when_a_task_dies(tmp_path):
    with Cluster(tmp_path, ["-c", "raise SystemExit('no')"], command=[sys.executable], chief=1) as cluster:
        cluster.start()
        with pytest.raises(AssertionError, match=r"(?s)failed while waiting.*chief 0 \(status 1\).*\nno"):
            cluster.finish()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_tasks_die_with_the_test_process(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from tests.cluster import Cluster\n"
        f"c = Cluster(Path({str(tmp_path)!r}), ['-c', {SLEEPER!r}], command=[sys.executable], worker=1)\n"
        "c.start(); c.wait_for_text('worker', 0, 'up'); print(c.tasks['worker', 0].process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    state = Path(f"/proc/{int(done.stdout)}/stat")
    deadline = time.monotonic() + 20
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] not in "ZX":
        assert time.monotonic() < deadline, "the task outlived the test process"
        time.sleep(0.1)


def test_free_ports_are_different():
    assert len(set(free_ports(8))) == 8
