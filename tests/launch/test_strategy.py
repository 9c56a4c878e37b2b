"""Which strategy a run has: settings against the cluster and the devices that there are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from estimator_tl.compat import tf
from estimator_tl.config import LaunchSpec
from estimator_tl.errors import UserError
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.launch.cluster.run_config import run_config
from estimator_tl.launch.cluster.strategy import Distribution, distribution_of, make_strategy
from estimator_tl.tf_internals.devices import check_devices

ROOT = Path(__file__).resolve().parents[2]
TWO_CPUS = ("/cpu:0", "/cpu:1")
FOUR_GPUS = tuple(f"/gpu:{index}" for index in range(4))
CLUSTERS = {
    "none": None,
    "servers": Cluster({"chief": {0: "a:1"}, "worker": {0: "b:1"}, "ps": {0: "c:1"}}, "worker", 0, "TF_CONFIG"),
    "workers": Cluster({"chief": {0: "a:1"}, "worker": {0: "b:1", 1: "c:1"}}, "chief", 0, "TF_CONFIG"),
    "evaluator": Cluster({"chief": {0: "a:1"}}, "evaluator", 0, "TF_CONFIG"),
}


@pytest.fixture
def gpus(monkeypatch):
    """Makes TensorFlow list so many GPUs."""

    def shows(count):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["gpu"] * count)

    shows(0)
    return shows


@pytest.mark.parametrize(
    ("asked", "cluster", "there", "expected"),
    [
        ({}, "none", 0, Distribution("off")),
        ({}, "none", 1, Distribution("off")),
        ({}, "none", 4, Distribution("mirrored", FOUR_GPUS, 4)),
        ({"num_gpus": 2}, "none", 4, Distribution("mirrored", FOUR_GPUS[:2], 2)),
        ({"num_gpus": 1}, "none", 4, Distribution("off")),
        ({"cpu_replicas": 2}, "none", 0, Distribution("mirrored", TWO_CPUS, 2)),
        ({"cpu_replicas": 2, "num_gpus": 0}, "none", 4, Distribution("mirrored", TWO_CPUS, 2)),
        ({}, "evaluator", 0, Distribution("off")),
        ({}, "evaluator", 4, Distribution("mirrored", FOUR_GPUS, 4)),
        ({}, "servers", 0, Distribution("parameter_server")),
        ({}, "servers", 4, Distribution("parameter_server")),
        ({}, "workers", 0, Distribution("multi_worker_mirrored", ("/cpu:0",), 3)),
        ({}, "workers", 4, Distribution("multi_worker_mirrored", FOUR_GPUS, 12)),
        ({"distribution": "off"}, "none", 4, Distribution("off")),
        ({"distribution": "off"}, "evaluator", 4, Distribution("off")),
        ({"distribution": "mirrored"}, "none", 0, Distribution("off")),
        ({"distribution": "mirrored"}, "none", 4, Distribution("mirrored", FOUR_GPUS, 4)),
        ({"distribution": "parameter_server"}, "servers", 0, Distribution("parameter_server")),
        (
            {"distribution": "multi_worker_mirrored"},
            "workers",
            0,
            Distribution("multi_worker_mirrored", ("/cpu:0",), 3),
        ),
        (
            {"distribution": "multi_worker_mirrored"},
            "evaluator",
            0,
            Distribution("multi_worker_mirrored", ("/cpu:0",), 1),
        ),
    ],
)
def test_distribution(asked, cluster, there, expected, gpus):
    gpus(there)
    assert distribution_of(LaunchSpec(**asked), CLUSTERS[cluster]) == expected


@pytest.mark.parametrize(
    ("asked", "cluster", "there", "message"),
    [
        ({"distribution": "miror"}, "none", 0, "did you mean 'mirrored'"),
        ({"distribution": "tpu"}, "none", 0, "shows TensorFlow no TPU"),
        ({"distribution": "off"}, "servers", 0, "off is for one process, but TF_CONFIG describes a cluster of 2"),
        ({"distribution": "mirrored"}, "workers", 0, "mirrored is for one process"),
        ({"distribution": "parameter_server"}, "none", 0, "needs a cluster; set TF_CONFIG"),
        ({"distribution": "multi_worker_mirrored"}, "none", 0, "needs a cluster; set TF_CONFIG"),
        ({"distribution": "parameter_server"}, "workers", 0, "lists no ps"),
        ({"distribution": "parameter_server"}, "evaluator", 0, "lists no ps"),
        ({"distribution": "multi_worker_mirrored"}, "servers", 0, "has no parameter servers, but TF_CONFIG lists 1"),
        ({"num_gpus": 5}, "none", 4, "num_gpus 5, but TensorFlow sees 4"),
        ({"num_gpus": 1}, "none", 0, "num_gpus 1, but TensorFlow sees 0"),
        ({"cpu_replicas": 2}, "none", 4, "give num_gpus=0 as well"),
        ({"cpu_replicas": 2}, "workers", 0, "each worker is one replica"),
        ({"cpu_replicas": 2}, "servers", 0, "each worker is one replica"),
        ({"num_gpus": 2}, "workers", 4, "CUDA_VISIBLE_DEVICES"),
        ({"num_gpus": 0}, "workers", 4, "CUDA_VISIBLE_DEVICES"),
        ({"save_checkpoints_secs": 60}, "workers", 0, "use save_checkpoints_steps"),
        ({"all_reduce_alg": "ring", "cpu_replicas": 2}, "none", 0, "all_reduce_alg of mirrored 'ring'"),
        ({"all_reduce_alg": "hierarchical_copy"}, "workers", 0, "all_reduce_alg of multi_worker_mirrored"),
    ],
)
def test_what_does_not_fit_is_refused(asked, cluster, there, message, gpus):
    gpus(there)
    with pytest.raises(UserError) as refused:
        distribution_of(LaunchSpec(**asked), CLUSTERS[cluster])
    assert message in str(refused.value)


def test_only_tasks_that_save_together_need_steps(gpus):
    by_clock = LaunchSpec(save_checkpoints_secs=60)
    assert distribution_of(by_clock, CLUSTERS["servers"]).kind == "parameter_server"
    assert distribution_of(by_clock, None).kind == "off"


def test_a_batch_is_divided_among_replicas():
    assert Distribution("off").batch_of_replica(7) == 7
    assert Distribution("parameter_server").batch_of_replica(7) == 7
    three = Distribution("mirrored", replicas=3)
    assert three.batch_of_replica(6) == 2
    with pytest.raises(UserError, match="--batch_size=6"):
        three.batch_of_replica(8)
    with pytest.raises(UserError, match="--batch_size=3"):
        three.batch_of_replica(2)


@pytest.mark.parametrize("kind", ["off", "parameter_server"])
def test_estimator_needs_no_strategy(kind):
    assert make_strategy(Distribution(kind)) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nccl", tf.distribute.NcclAllReduce),
        ("hierarchical_copy", tf.distribute.HierarchicalCopyAllReduce),
        ("reduction_to_one", tf.distribute.ReductionToOneDevice),
    ],
)
def test_the_algorithm_reaches_the_mirrored_strategy(name, expected):
    strategy = make_strategy(distribution_of(LaunchSpec(cpu_replicas=2, all_reduce_alg=name), None))
    assert strategy.num_replicas_in_sync == 2
    assert type(strategy.extended._cross_device_ops) is expected


@pytest.mark.parametrize("name", ["auto", "ring", "nccl"])
def test_the_algorithm_reaches_the_strategy_of_many_workers(name, monkeypatch):
    given = {}
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda **kwargs: given.update(kwargs))
    make_strategy(distribution_of(LaunchSpec(all_reduce_alg=name), CLUSTERS["workers"]))
    assert given["communication_options"].implementation.name == name.upper()


@pytest.mark.parametrize(
    ("config", "missing"),
    [(None, "CPU:1"), ({}, "CPU:1"), ({"CPU": 1}, "CPU:1"), ({"CPU": 2}, None)],
)
def test_a_session_must_have_the_devices_of_the_strategy(config, missing):
    strategy = tf.distribute.MirroredStrategy(list(TWO_CPUS))
    session_config = None if config is None else tf.compat.v1.ConfigProto(device_count=config)
    if missing is None:
        check_devices(strategy, session_config)
        return
    with pytest.raises(
        UserError, match=f"needs {missing}, but the number of CPUs in the session is 1;.*cpu_replicas=2"
    ):
        check_devices(strategy, session_config)


def test_a_strategy_of_ones_own_is_checked():
    with pytest.raises(UserError, match="needs CPU:1"):
        run_config(train_distribute=tf.distribute.MirroredStrategy(list(TWO_CPUS)))


def test_gpus_that_a_session_may_not_use_are_not_there(gpus):
    class Strategy:
        class extended:
            worker_devices = ("/replica:0/task:0/device:GPU:0", "/replica:0/task:0/device:GPU:1")

    gpus(2)
    check_devices(Strategy, tf.compat.v1.ConfigProto(device_count={"GPU": 2}))
    with pytest.raises(UserError, match="needs GPU:1, but the number of GPUs in the session is 1; use fewer replicas"):
        check_devices(Strategy, tf.compat.v1.ConfigProto(device_count={"GPU": 1}))


PROGRAM = """
import sys
import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from tests.tiny import random_batches
model_fn = etl.make_model_fn(etl.backbone(sys.argv[1]), etl.heads.classifier(n_classes=3))
config = estimator.RunConfig(train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]))
estimator.Estimator(model_fn, sys.argv[2], config, params={}).train(random_batches(8), max_steps=1)
"""


def test_a_run_config_of_somebody_else_fails_where_tensorflow_would_hang(keras_h5, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, keras_h5.handle, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "UserError: the strategy needs CPU:1, but the number of CPUs in the session is 1" in done.stderr
