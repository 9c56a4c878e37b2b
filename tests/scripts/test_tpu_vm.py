"""scripts/tpu_vm.sh with a stand-in for gcloud."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from tests.scripts.fakes import SCRIPTS, Fakes

TRAIN = ["estimator-tl", "train", "--flagfile=a b.flags", "--head=classifier(hidden_units=[64])", "--data=$HOME's"]
WHERE = ["--zone=us-central2-b", "--worker=all"]


@pytest.fixture
def gcloud(tmp_path):
    fakes = Fakes(tmp_path)
    fakes.recorder("gcloud", 'exit "${CODE:-0}"')
    return fakes


def run(gcloud, *flags, command=TRAIN, **environment):
    separated = ["--", *command] if command else []
    process = gcloud.start("tpu_vm.sh", *flags, *separated, **environment)
    out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


def through_a_shell(text):
    """Returns the words that a worker's shell makes of a text."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_one_command_on_all_workers(gcloud):
    assert run(gcloud, "--name=pod", "--zone=us-central2-b", "--project=p")[0] == 0
    ((*words, last),) = gcloud.calls()
    assert words == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod", *WHERE, "--project=p"]
    option, _, command = last.partition("=")
    assert option == "--command"
    assert through_a_shell(command) == TRAIN


def test_files_go_first(gcloud):
    (gcloud.folder / "train.flags").touch()
    assert run(gcloud, "--name=pod", "--zone=us-central2-b", "--copy=train.flags")[0] == 0
    copied, ran = gcloud.calls()
    assert copied == ["gcloud", "compute", "tpus", "tpu-vm", "scp", "--recurse", "train.flags", "pod:", *WHERE]
    assert ran[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod"]


def test_a_dry_run_says_what_it_would_do(gcloud):
    (gcloud.folder / "train.flags").touch()
    flags = ["--name=pod", "--zone=us-central2-b", "--copy=train.flags"]
    code, out, _ = run(gcloud, *flags, "--dry_run")
    assert (code, gcloud.calls()) == (0, [])
    run(gcloud, *flags)
    assert [shlex.split(line) for line in out.splitlines()] == gcloud.calls()


def test_the_exit_code_is_gclouds(gcloud):
    assert run(gcloud, "--name=pod", "--zone=z", CODE="138")[0] == 138
    (gcloud.folder / "x").touch()
    assert run(gcloud, "--name=pod", "--zone=z", "--copy=x", CODE="1")[0] == 1
    assert len(gcloud.calls()) == 2  # what could not be copied is not run


@pytest.mark.parametrize(
    ("flags", "command", "message"),
    [
        (["--zone=z"], TRAIN, "no --name given"),
        (["--name=pod"], TRAIN, "no --zone given"),
        (["--name=pod", "--zone=z"], [], "no command given"),
        (["--name=pod", "--zoen=z"], TRAIN, "unknown argument --zoen=z"),
        (["--name=pod", "--zone=z", "--copy=nowhere"], TRAIN, "--copy=nowhere does not exist"),
    ],
)
def test_bad_input_is_one_line(gcloud, flags, command, message):
    code, _, errors = run(gcloud, *flags, command=command)
    assert (code, gcloud.calls(), errors.count("\n")) == (2, [], 1)
    assert errors.startswith(f"error: {message}")


def test_bash_reads_it():
    assert subprocess.run(["bash", "-n", str(SCRIPTS / "tpu_vm.sh")], check=False).returncode == 0
