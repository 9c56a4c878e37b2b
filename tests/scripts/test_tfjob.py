"""scripts/render_tfjob.py and scripts/tfjob.yaml against what Kubeflow's operator takes and does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from estimator_tl.launch.cluster.description import from_tf_config
from tests.scripts.tfjobs import problems, tf_config

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"
GIVEN = {"name": "flowers", "image": "registry.example/etl:1.0", "volume_claim": "runs", "model_dir": "/runs/flowers"}


def run(*flags, train=("--flagfile=/runs/train.flags",), **given):
    values = {**GIVEN, **given}
    own = [f"--{name}={value}" for name, value in values.items() if value is not None]
    line = [sys.executable, "-S", str(SCRIPTS / "render_tfjob.py"), *own, *flags, *(["--", *train] if train else [])]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def rendered(*flags, **given):
    done = run(*flags, **given)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def pods(job):
    """Yields the name, number and container of each pod."""
    for name, spec in job["spec"]["tfReplicaSpecs"].items():
        for index in range(spec["replicas"]):
            yield name, index, spec["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"workers": 3},
        {"workers": 2, "ps": 2, "evaluator": 1, "namespace": "ml"},
        {"evaluator": 1, "gpus": 4, "cpu": "2"},
    ],
)
def test_the_operator_takes_it(given):
    job = rendered(**given)
    assert list(problems(job)) == []
    expected = {"Chief": 1, "Worker": given.get("workers"), "PS": given.get("ps"), "Evaluator": given.get("evaluator")}
    found = {name: spec["replicas"] for name, spec in job["spec"]["tfReplicaSpecs"].items()}
    assert found == {name: count for name, count in expected.items() if count}


def test_each_pod_finds_its_place():
    """From the flags of the renderer to the Cluster that train works with in the pod."""
    job = rendered(workers=2, ps=1, evaluator=1, namespace="ml")
    tasks = list(pods(job))
    assert len(tasks) == 5
    for name, index, _ in tasks:
        cluster = from_tf_config(tf_config(job, name, index))
        assert (cluster.job, cluster.index, cluster.workers, cluster.servers) == (name.lower(), index, 3, 1)
        assert cluster.tasks["chief"] == {0: "flowers-chief-0.ml.svc:2222"}
        assert cluster.tasks["worker"][1] == "flowers-worker-1.ml.svc:2222"
        assert cluster.evaluator is None
    assert tf_config(rendered(), "Chief", 0) is None


def test_what_a_task_runs():
    job = rendered(
        workers=1, train=["--flagfile=/runs/a b.flags", "--tuning=last_layers(3)", "on", "1e3", "#x", "a: b"]
    )
    for _, _, container in pods(job):
        assert container["command"] == [
            "estimator-tl", "train", "--model_dir=/runs/flowers",
            "--flagfile=/runs/a b.flags", "--tuning=last_layers(3)", "on", "1e3", "#x", "a: b",
        ]  # fmt: skip
        assert container["image"] == "registry.example/etl:1.0"


def test_restarts_and_ends():
    job = rendered("--grace_secs=60", "--ttl_secs=10", workers=1, evaluator=1)
    for spec in job["spec"]["tfReplicaSpecs"].values():
        assert spec["restartPolicy"] == "ExitCode"
        assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 60
    assert job["spec"]["runPolicy"] == {"cleanPodPolicy": "None", "ttlSecondsAfterFinished": 10}
    assert rendered(workers=1)["spec"]["runPolicy"]["cleanPodPolicy"] == "Running"


def test_who_has_accelerators():
    limits = {
        name: container.get("resources", {}).get("limits")
        for name, _, container in pods(rendered(workers=1, ps=1, evaluator=1, gpus=2, memory="8Gi"))
    }
    assert limits["Chief"] == limits["Worker"] == {"memory": "8Gi", "nvidia.com/gpu": 2}
    assert limits["PS"] == limits["Evaluator"] == {"memory": "8Gi"}
    assert "resources" not in next(pods(rendered()))[2]


def test_the_commented_manifest_is_what_is_rendered():
    text = (SCRIPTS / "tfjob.yaml").read_text()
    assert list(problems(yaml.safe_load(text))) == []
    (said,) = re.findall(r"writes for\n((?:#   .*\n)+)", text)
    line = said.replace("#", "").split()
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "render_tfjob.py"), *line],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert yaml.safe_load(done.stdout) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "Flowers"}, "--name=Flowers cannot name pods"),
        ({"name": "f" * 52}, "use at most 51 lower-case letters"),
        ({"name": None}, "--name"),
        ({"image": None}, "--image"),
        ({"volume_claim": None}, "--volume_claim"),
        ({"model_dir": "/runsflowers"}, "is not on the shared volume, which is mounted at /runs"),
        ({"evaluator": 2}, "--evaluator"),
        ({"workers": -1}, "--workers=-1 is below 0"),
        ({"wrokers": 1}, "--wrokers"),
        ({"train": ()}, "no flags of train given"),
        ({"train": ("--model_dir=/x",)}, "write it before the --"),
    ],
)
def test_bad_input_is_one_line(given, message):
    done = run(**given)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_schema_can_say_no():
    job = rendered(workers=1)
    job["spec"]["cleanPodPolicy"] = "None"
    job["spec"]["tfReplicaSpecs"]["Worker"]["replicas"] = "1"
    del job["spec"]["tfReplicaSpecs"]["Chief"]["template"]["spec"]["containers"][0]["image"]
    job["spec"]["tfReplicaSpecs"]["Chief"]["template"]["spec"]["volumes"] = []
    found = "\n".join(problems(job))
    assert "TFJob.spec has an unknown field cleanPodPolicy" in found
    assert "Worker.replicas is '1', not of <class 'int'>" in found
    assert "containers[] lacks image" in found
    assert "Chief: volumes and their mounts differ" in found
