"""Mistakes on clusters: one line, exit code 2, soon, while a chief is alive."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest

from estimator_tl.cli.main import main
from tests.cluster import free_ports
from tests.launched import cluster_of, flags_of

STEPS = 10


@pytest.fixture(scope="module")
def waiting_chief(tmp_path_factory, keras_h5, pictures):
    """A chief that waits for its parameter server: (its flags, its cluster)."""
    folder = tmp_path_factory.mktemp("cluster")
    flags = flags_of(folder / "run", keras_h5, pictures, STEPS)
    with cluster_of(folder / "logs", flags, {"chief": 1, "worker": 1, "ps": 1}) as cluster:
        cluster.start("chief")
        cluster.wait_until(lambda: (folder / "run" / "launch.json").exists(), "the chief's mark")
        cluster.wait_until(lambda: listens(cluster.spec["chief"][0]), "the chief's server")
        yield flags, cluster.spec


def listens(address):
    host, port = address.split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


@pytest.fixture
def refused(monkeypatch, capfd):
    """Runs `train` as a task in this process and returns the line of its refusal."""

    def run(flags, spec, job, **changes):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": spec, "task": {"type": job, "index": 0}}))
        code = main(["train", *flags, *(f"--{name}={value}" for name, value in changes.items())])
        line = capfd.readouterr().err.splitlines()[-1]
        assert (code, line.startswith("error: ")) == (2, True), line
        return line

    return run


def test_other_settings_than_the_chiefs(waiting_chief, refused):
    began = time.monotonic()
    line = refused(*waiting_chief, "worker", learning_rate=0.02)
    assert time.monotonic() - began < 15
    assert "worker 0 has training.learning_rate '0.02', but the chief has '0.01'" in line


def test_a_model_dir_that_is_not_shared(waiting_chief, refused, tmp_path):
    began = time.monotonic()
    line = refused(*waiting_chief, "worker", model_dir=tmp_path, cluster_wait_secs=3)
    assert time.monotonic() - began < 15
    assert f"does not appear in {tmp_path}: the tasks do not share this directory" in line
    assert waiting_chief[1]["chief"][0] in line


def test_a_port_that_is_taken(waiting_chief, refused):
    address = waiting_chief[1]["ps"][0]
    with socket.socket() as other:
        other.bind(("", int(address.split(":")[1])))
        other.listen()
        line = refused(*waiting_chief, "ps")
    assert f"ps 0 cannot listen at {address}" in line
    assert "its port is taken" in line


@pytest.fixture
def flags(tmp_path, keras_h5, pictures):
    return flags_of(tmp_path / "run", keras_h5, pictures, STEPS)


def spec_of(chief="localhost", other="worker"):
    first, second = free_ports(2)
    return {"chief": [f"{chief}:{first}"], other: [f"localhost:{second}"]}


@pytest.mark.parametrize(("job", "broken", "name"), [("worker", "chief", "chief 0"), ("chief", "ps", "ps 0")])
def test_a_host_name_that_does_not_resolve(refused, flags, tmp_path, job, broken, name):
    ports = free_ports(3)
    spec = {known: [f"localhost:{port}"] for known, port in zip(("chief", "worker", "ps"), ports)}
    spec[broken] = [f"nowhere.invalid:{ports[0]}"]
    line = refused(flags, spec, job, cluster_wait_secs=1)
    assert f"the host name of {name}, nowhere.invalid:{ports[0]}, does not resolve within 1 s" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("job", "other", "changes", "message"),
    [
        (
            "chief",
            "worker",
            {"batch_size": 7},
            "batch_size 7 is of all replicas together and cannot be divided among 2",
        ),
        ("chief", "worker", {"distribution": "parameter_server"}, "TF_CONFIG lists no ps"),
        ("chief", "ps", {"distribution": "multi_worker_mirrored"}, "has no parameter servers"),
        ("worker", "worker", {"distribution": "mirrored"}, "distribution mirrored is for one process"),
        ("evaluator", "worker", {}, "there is nothing to evaluate on; give --eval_data"),
    ],
)
def test_settings_that_do_not_fit(refused, flags, tmp_path, job, other, changes, message):
    assert message in refused(flags, spec_of(other=other), job, **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.full
@pytest.mark.parametrize("job", ["chief", "worker"])
def test_a_port_that_is_taken_under_multi_worker_mirrored(job, tmp_path, keras_h5, pictures):
    flags = flags_of(tmp_path / "run", keras_h5, pictures, STEPS)
    with socket.socket() as other, cluster_of(tmp_path / "logs", flags, {"chief": 1, "worker": 1}) as cluster:
        address = cluster.spec[job][0]
        other.bind(("", int(address.split(":")[1])))
        other.listen()
        cluster.start()
        deadline = time.monotonic() + 60
        while cluster.tasks[job, 0].status is None:
            assert time.monotonic() < deadline, cluster.report()
            time.sleep(0.1)
        assert cluster.tasks[job, 0].status == 2, cluster.report()
        assert f"{job} 0 cannot listen at {address}" in cluster.text(job)
