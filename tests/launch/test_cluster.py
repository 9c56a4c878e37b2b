"""Descriptions of clusters, as schedulers write them."""

from __future__ import annotations

import json

import pytest

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.launch.cluster.description import Cluster, from_hosts, from_tf_config
from estimator_tl.launch.cluster.slurm import from_slurm, parse_jobs


def config(cluster, job="worker", index=0, **others):
    return from_tf_config(json.dumps({"cluster": cluster, "task": {"type": job, "index": index}, **others}))


FULL = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}


def test_no_cluster_is_described():
    assert from_tf_config("") is None
    assert from_tf_config('{"environment": "cloud"}') is None
    assert from_tf_config('{"cluster": {}, "task": {"type": "worker", "index": 0}}') is None
    assert from_hosts([], [], None, None) is None


def test_tf_config_as_it_is():
    cluster = config(FULL, "worker", 1)
    assert cluster.tasks == {"chief": {0: "a:1"}, "worker": {0: "b:1", 1: "c:1"}, "ps": {0: "d:1"}}
    assert (cluster.job, cluster.index, cluster.number) == ("worker", 1, 2)
    assert (cluster.workers, cluster.servers, cluster.is_chief, cluster.is_distributed) == (3, 1, False, True)
    assert cluster.address() == "c:1"
    assert dict(cluster.peers()) == {"chief 0": "a:1", "worker 0": "b:1", "ps 0": "d:1"}
    assert json.loads(cluster.tf_config()) == {"cluster": FULL, "task": {"type": "worker", "index": 1}}


@pytest.mark.parametrize(
    ("described", "task", "expected"),
    [
        ({"master": ["a:1"], "worker": ["b:1"]}, ("master", 0), ("chief", 0)),
        ({"worker": ["a:1", "b:1"]}, ("worker", 0), ("chief", 0)),
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), ("worker", 0)),
    ],
)
def test_there_is_always_a_chief(described, task, expected):
    cluster = config(described, *task)
    assert (cluster.job, cluster.index) == expected
    assert cluster.tasks == {"chief": {0: "a:1"}, "worker": {0: "b:1"}}
    assert cluster.name == f"{task[0]} {task[1]}".replace("master", "chief")  # messages say what people call it


def test_tasks_keep_the_names_that_people_gave_them():
    cluster = config({"worker": ["a:1", "b:1", "c:1"], "ps": ["d:1"]}, "worker", 0)
    assert dict(cluster.peers()) == {"worker 1": "b:1", "worker 2": "c:1", "ps 0": "d:1"}
    assert cluster.text().splitlines() == [
        "this task      worker 0, the chief, from TF_CONFIG",
        "worker         a:1, b:1, c:1",
        "ps             d:1",
    ]


def test_a_tfjob():
    """As the training operator writes it: an environment, and an evaluator that is no part of the cluster."""
    cluster = config(
        {"chief": ["job-chief-0.ns.svc:2222"], "ps": ["job-ps-0.ns.svc:2222"]}, "evaluator", environment="cloud"
    )
    assert (cluster.job, cluster.address(), cluster.is_distributed) == ("evaluator", None, True)
    assert "evaluator" not in json.loads(cluster.tf_config())["cluster"]


def test_an_evaluator_that_is_listed_is_no_part_of_the_cluster():
    cluster = config({**FULL, "evaluator": ["e:1"]}, "evaluator", 0)
    assert (cluster.evaluator, cluster.address()) == ("e:1", "e:1")
    assert json.loads(cluster.tf_config())["cluster"] == FULL


def test_sparse_maps_of_dynamic_workers():
    sparse = {"chief": ["a:1"], "worker": {"1": "c:1"}, "ps": ["d:1"]}
    text = json.dumps({"sparseCluster": sparse, "task": {"type": "worker", "index": 1}})
    for cluster in (from_tf_config(text), config(sparse, "worker", 1)):
        assert cluster.tasks["worker"] == {1: "c:1"}
        assert (cluster.workers, cluster.number) == (3, 2)
        kept = json.loads(cluster.tf_config())["cluster"]
        assert kept["worker"] == {"1": "c:1"}
        assert (
            tf.train.ClusterSpec({job: _numbers(given) for job, given in kept.items()}).task_address("worker", 1)
            == "c:1"
        )


def _numbers(given):
    return {int(index): address for index, address in given.items()} if isinstance(given, dict) else given


def test_one_task_is_no_cluster_to_train_on():
    assert not config({"worker": ["a:1"]}).is_distributed
    assert not config({"chief": ["a:1"], "evaluator": ["b:1"]}, "chief").is_distributed


def test_classic_flags():
    first = from_hosts(["a:1", "b:1"], ["c:1"], "worker", 0)
    assert (first.job, first.index, first.tasks) == (
        "chief", 0, {"chief": {0: "a:1"}, "worker": {0: "b:1"}, "ps": {0: "c:1"}},
    )  # fmt: skip
    assert from_hosts(["a:1", "b:1"], ["c:1"], "ps", 0).address() == "c:1"
    assert from_hosts(["b:1"], [], "chief", 0, ["a:1"]).is_chief


STEP = {
    "SLURM_PROCID": "2",
    "SLURM_STEP_NODELIST": "n[2,10]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}


def test_slurm():
    """A step of four tasks on two nodes, whose names are not in the order of the alphabet."""
    cluster = from_slurm(parse_jobs("chief:1,worker:2,evaluator:1"), 8888, STEP)
    assert cluster.tasks == {"chief": {0: "n2:8888"}, "worker": {0: "n2:8889", 1: "n10:8888"}}
    assert (cluster.job, cluster.index, cluster.evaluator) == ("worker", 1, "n10:8889")


@pytest.mark.parametrize(
    ("jobs", "step", "message"),
    [
        ("chief:1,worker:2", STEP, "--slurm_jobs=chief:1,worker:2 has 3 tasks, the Slurm step 4; make them equal"),
        ("worker:4", {}, "SLURM_PROCID is not set; start the program with srun"),
        ("worker:4", {**STEP, "SLURM_STEP_NODELIST": "n[1"}, "Slurm's variables cannot be read: Invalid hostlist"),
    ],
)
def test_slurm_steps_that_do_not_fit(jobs, step, message):
    with pytest.raises(UserError, match=message):
        from_slurm(parse_jobs(jobs), 8888, step)


def test_people_can_read_it():
    assert config({**FULL, "evaluator": ["e:1"]}, "worker", 1).text().splitlines() == [
        "this task      worker 1, from TF_CONFIG",
        "chief          a:1",
        "worker         b:1, c:1",
        "ps             d:1",
        "evaluator      e:1",
    ]


BAD = [
    ("{cluster}", "TF_CONFIG is not JSON .*double quotes"),
    ("[1]", r"TF_CONFIG is \[1\]; give"),
    ('{"cluster": [1]}', r"cluster is \[1\]; give"),
    ('{"cluster": {"worker": ["a:1"]}}', "does not say which task this is"),
    ('{"cluster": {"worker": "a:1"}, "task": {"type": "worker"}}', "worker is 'a:1'; give a list"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}', "index is -1; give a whole number"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "is worker 1, but the job"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "ps 0, but the job is not in the cluster"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "wroker"}}', "unknown job 'wroker'; did you mean 'worker'"),
    ('{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief"}}', "lists 2 chiefs; there must be one"),
    ('{"cluster": {"chief": ["a:1"], "master": ["b:1"]}, "task": {"type": "chief"}}', "a chief and a master"),
    ('{"cluster": {"worker": ["a:1"], "ps": ["a:1"]}, "task": {"type": "worker"}}', "two tasks the address a:1"),
    ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker"}}', "'a' of chief 0 is not host:port"),
    ('{"cluster": {"worker": ["a:70000"]}, "task": {"type": "worker"}}', "'a:70000' of chief 0 is not host:port"),
    ('{"cluster": {"worker": {"1": "a:1"}}, "task": {"type": "worker", "index": 1}}', "neither a chief nor worker 0"),
    ('{"cluster": {"worker": {"x": "a:1"}}, "task": {"type": "worker"}}', "an index of worker is 'x'"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 1}}', "more than one evaluator"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD)
def test_contradictions_are_errors(text, message):
    with pytest.raises(UserError, match=message):
        from_tf_config(text)


def test_classic_flags_that_contradict_each_other():
    with pytest.raises(UserError, match="without --worker_hosts"):
        from_hosts([], [], "worker", 0)
    with pytest.raises(UserError, match="without --job_name"):
        from_hosts(["a:1"], [], None, 0)
    with pytest.raises(UserError, match="this process is worker 2, but the job has the tasks 0"):
        from_hosts(["a:1", "b:1"], [], "worker", 2)


@pytest.mark.parametrize("text", ["", "wroker:1", "worker:x", "worker:1,worker:2"])
def test_jobs_of_slurm_that_are_none(text):
    with pytest.raises(UserError, match="--slurm_jobs="):
        parse_jobs(text)


def test_an_object_cannot_be_made_wrong():
    with pytest.raises(UserError, match="lists 0 chiefs"):
        Cluster({"worker": {0: "a:1"}}, "worker", 0, "here")
