"""`estimator-tl doctor`: each check in each of its outcomes."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

from estimator_tl.cli.cluster_flags import cluster_of, define_cluster
from estimator_tl.cli.command import CommandFlags
from estimator_tl.cli.main import main
from estimator_tl.errors import UserError
from estimator_tl.launch import doctor
from tests.cluster import free_ports
from tests.tiny import write_pictures


def examined(capsys, *flags):
    """Returns the exit code, the report, and what stands in standard error."""
    code = main(["doctor", *flags])
    printed = capsys.readouterr()
    report = printed.out.splitlines()
    assert all(re.match(r"(ok  |warn|fail)  \S", line) for line in report), report
    failed = [line[6:] for line in report if line.startswith("fail")]
    assert code == (2 if failed else 0)
    if failed:
        number = f"{len(failed)} check{'s' * (len(failed) > 1)}"
        assert printed.err == f"error: {number} failed; first: {failed[0]}\n"
    return code, report


def tf_config(monkeypatch, cluster, job, index):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": job, "index": index}}))


@pytest.fixture
def listening():
    with socket.create_server(("localhost", 0)) as server:
        yield f"localhost:{server.getsockname()[1]}"


@pytest.fixture
def free():
    return f"localhost:{free_ports(1)[0]}"


def test_versions_and_devices(capsys):
    code, report = examined(capsys)
    assert code == 0
    assert report[0].startswith(f"ok    Python {platform.python_version()}, estimator_tl ")
    for name in ("tensorflow", "tensorflow-estimator", "tf_keras", "tensorflow-hub", "numpy"):
        assert re.search(rf"\b{name} \d", report[1])
    assert f"numpy {np.__version__}" in report[1]
    assert re.fullmatch(rf"ok    \d+ CPUs, \d+\.\d GiB memory on {re.escape(socket.gethostname())}", report[2])
    assert report[-2:] == ["ok    no cluster is described: train runs as one process", "ok    distribution off"]


def test_memory_is_that_of_the_container(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(doctor, "_CGROUP_LIMITS", (str(limit), str(tmp_path / "none")))
    whole = doctor._memory()
    limit.write_text("max\n")
    assert doctor._memory() == whole
    limit.write_text("1048576\n")
    assert doctor._memory() == 2**20


def test_a_cluster_of_which_a_part_is_there(capsys, monkeypatch, listening, free):
    worker = f"localhost:{free_ports(1)[0]}"
    tf_config(monkeypatch, {"chief": [listening], "worker": [worker], "ps": [free]}, "worker", 0)
    code, report = examined(capsys)
    assert code == 0
    assert "ok    this task      worker 0, from TF_CONFIG" in report
    assert f"ok    ps             {free}" in report
    assert f"ok    worker 0 can listen on the port of {worker}" in report
    assert [line for line in report if line.startswith(f"ok    chief 0 at {listening}: reached in ")]
    assert f"warn  ps 0 at {free}: refused (nothing listens yet)" in report
    assert "TF_CONFIG" in os.environ


def test_the_own_port_is_taken(capsys, listening, free):
    hosts = f"--worker_hosts={listening},{free}"
    code, report = examined(capsys, hosts, "--job_name=worker", "--task_index=0")
    assert code == 2
    assert f"fail  worker 0 cannot listen on the port of {listening}: Address already in use" in report


def test_a_host_that_nobody_knows(capsys, monkeypatch, free):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    flags = [f"--chief_hosts={free}", "--worker_hosts=nobody.invalid:2222", "--job_name=chief"]
    code, report = examined(capsys, *flags, "--peer_timeout_secs=2")
    assert code == 2
    assert "fail  worker 0 at nobody.invalid:2222: host name does not resolve" in report


def test_an_evaluator_has_no_port(capsys, monkeypatch, listening):
    tf_config(monkeypatch, {"chief": [listening]}, "evaluator", 0)
    code, report = examined(capsys)
    assert code == 0
    assert not [line for line in report if "can listen" in line]


def test_a_wrong_description_is_one_finding_of_many(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CONFIG", "{")
    code, report = examined(capsys, f"--model_dir={tmp_path}")
    assert code == 2
    assert report[-2].startswith("fail  TF_CONFIG is not JSON")
    assert report[-1] == f"ok    model_dir {tmp_path} can be written"


def test_folders(capsys, tmp_path):
    (tmp_path / "file").touch()
    code, report = examined(capsys, f"--model_dir={tmp_path / 'run'}", f"--export_dir={tmp_path / 'file' / 'below'}")
    assert code == 2
    assert report[-2] == f"ok    model_dir {tmp_path / 'run'} can be written"
    assert report[-1].startswith(f"fail  cannot write to {tmp_path / 'file' / 'below'}")
    assert not (tmp_path / "run").exists()


def test_tasks_see_that_they_share_the_model_dir(capsys, monkeypatch, tmp_path, free):
    model_dir = tmp_path / "run"
    cluster = {"chief": [free]}
    tf_config(monkeypatch, cluster, "chief", 0)
    _, report = examined(capsys, f"--model_dir={model_dir}")
    assert report[-1].startswith("warn  model_dir holds no file of another task yet; run doctor in another task")
    tf_config(monkeypatch, cluster, "evaluator", 0)
    _, report = examined(capsys, f"--model_dir={model_dir}")
    assert report[-1] == f"ok    model_dir is shared with chief 0 on {socket.gethostname()}, which wrote a file there"
    tf_config(monkeypatch, cluster, "evaluator", 0)
    _, report = examined(capsys, f"--model_dir={tmp_path / 'other'}")
    assert report[-1].startswith("warn  model_dir holds no file")


def test_data_and_one_step(capsys, monkeypatch, hub_module, pictures, tmp_path, free):
    """In a cluster, too, for which the step does not wait."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tf_config(monkeypatch, {"chief": [free], "worker": [f"localhost:{free_ports(1)[0]}"]}, "chief", 0)
    flags = [f"--backbone={hub_module.handle}", f"--train_data={pictures}", "--validation_fraction=0", "--batch_size=4"]
    code, report = examined(capsys, *flags, "--tuning=last_groups(2)")
    assert code == 0
    data, plan, step = report[-3:]
    assert data == f"ok    30 images in 3 classes, 30 of them to train on; the first: {pictures}/cat/000.png"
    assert plan.startswith("ok    tuning last_groups(2): trainable params: 228 || all params: ")
    assert re.fullmatch(r"ok    one step on a batch of 4 in [\d.]+ s; trainable params: 249 \|\| all params: .*", step)
    assert not list(tmp_path.glob("estimator_tl_doctor_*"))


def test_data_that_is_not_there(capsys, hub_module):
    code, report = examined(capsys, "--train_data=/nowhere", f"--backbone={hub_module.handle}", "--tuning=frozne")
    assert code == 2
    assert report[-2] == "fail  data folder /nowhere does not exist; check the path."
    assert "did you mean 'frozen'" in report[-1]


def test_a_step_is_left_out_where_data_or_backbone_failed(capsys, hub_module, pictures):
    """Its failure would be theirs once more."""
    code, report = examined(capsys, "--train_data=/nowhere", f"--backbone={hub_module.handle}")
    assert code == 2
    assert [line for line in report if "/nowhere" in line] == [
        "fail  data folder /nowhere does not exist; check the path."
    ]
    assert report[-1].startswith("ok    tuning frozen: ")
    code, report = examined(capsys, f"--train_data={pictures}", "--backbone=/nowhere.h5")
    assert [line for line in report if "/nowhere.h5" in line] == report[-1:]


def test_data_are_listed_once(capsys, hub_module, tmp_path):
    write_pictures(tmp_path, ("cat", "dog"), count=3)
    (tmp_path / "cat" / "notes.txt").write_text("n")
    main(["doctor", f"--train_data={tmp_path}", f"--backbone={hub_module.handle}", "--validation_fraction=0"])
    assert capsys.readouterr().err.count("left out: 1 file .txt") == 1


def test_what_hangs_is_a_finding():
    started = time.monotonic()

    def hanging():
        yield doctor.Finding("ok", "began")
        time.sleep(3)

    findings, ended = doctor.bounded("disk", hanging, 0.2)
    assert time.monotonic() - started < 2
    assert (str(findings[0]), ended) == ("ok    began", False)
    assert str(findings[1]) == "fail  disk: no end after 0.2 s; see --check_timeout_secs."


def test_the_program_ends_although_a_check_does_not():
    code = (
        "import sys, time\n"
        "from estimator_tl.cli.main import main\n"
        "from estimator_tl.compat import quiet\n"
        "quiet.import_tensorflow_quietly()\n"
        "from estimator_tl.launch import doctor\n"
        "import threading\n"
        "def hang():\n"
        "    threading.Thread(target=time.sleep, args=(300,)).start()\n"  # not a daemon: Python would wait for it
        "    time.sleep(300); yield\n"
        "doctor.devices = hang\n"
        "sys.exit(main(['doctor', '--check_timeout_secs=1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: 1 check failed; first: devices: no end after 1 s; see --check_timeout_secs.\n"
    assert done.stdout.splitlines()[-2].startswith("ok    no cluster")


def test_crashes_are_findings():
    def broken():
        raise MemoryError("no\nmore")
        yield

    findings, ended = doctor.bounded("one step", broken, 5)
    assert ([str(finding) for finding in findings], ended) == (["fail  one step: MemoryError: no more"], True)


def test_time_limits_are_checked(capsys):
    assert main(["doctor", "--peer_timeout_secs=0"]) == 2
    assert capsys.readouterr().err == "error: --peer_timeout_secs=0 must be above 0.\n"


def described(environ, *flags):
    known = CommandFlags()
    define_cluster(known)
    known.values(["x", *flags])
    return cluster_of(known.values, environ)


SLURM = {"SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
WORKERS = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'


def test_each_way_to_describe_a_cluster():
    assert described({}) is None
    assert described({"TF_CONFIG": '{"task": {"type": "worker"}}', **SLURM}) is None
    assert described({"TF_CONFIG": WORKERS}).source == "TF_CONFIG"
    classic = described({}, "--worker_hosts=a:1,b:1", "--ps_hosts=c:1", "--job_name=ps", "--task_index=0")
    assert (classic.job, classic.address(), classic.workers) == ("ps", "c:1", 2)
    assert described({}, "--chief_hosts=a:1", "--worker_hosts=b:1", "--job_name=worker").tasks["chief"] == {0: "a:1"}
    slurm = described(SLURM, "--slurm_jobs=chief:1,worker:1", "--slurm_port_base=9000")
    assert (slurm.job, slurm.address()) == ("worker", "n2:9000")


@pytest.mark.parametrize(
    ("environ", "flags", "both"),
    [
        ({"TF_CONFIG": WORKERS}, ["--worker_hosts=a:1", "--job_name=worker"], "TF_CONFIG and --worker_hosts"),
        ({"TF_CONFIG": WORKERS, **SLURM}, ["--slurm_jobs=worker:2"], "TF_CONFIG and --slurm_jobs"),
        (
            SLURM,
            ["--slurm_jobs=worker:2", "--worker_hosts=a:1", "--job_name=worker"],
            "--worker_hosts and --slurm_jobs",
        ),
    ],
)
def test_two_descriptions_are_refused(environ, flags, both):
    with pytest.raises(UserError, match=f"{both} both describe a cluster; keep one of them"):
        described(environ, *flags)


def test_how_training_would_be_distributed(capsys):
    code, report = examined(capsys, "--cpu_replicas=2", "--batch_size=32")
    assert code == 0
    assert report[-1] == "ok    distribution mirrored, 2 replicas with 16 examples each"
    code, report = examined(capsys, "--distribution=tpu")
    assert code == 2
    assert report[-1].startswith("fail  tpu local, but this machine shows TensorFlow no TPU")
