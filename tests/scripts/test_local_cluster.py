"""scripts/local_cluster on programs without TensorFlow, so that a cluster lives for a tenth of a second."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from estimator_tl.launch.cluster.description import from_tf_config

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "local_cluster"
PROGRAM = """
import json, os, pathlib, signal, sys, time
config = json.loads(os.environ["TF_CONFIG"])
job, index = config["task"]["type"], config["task"]["index"]
name = f"{job} {index}"
folder = pathlib.Path(sys.argv[1])
with open(folder / f"{job}_{index}", "a") as lives:
    print(os.environ["TF_CONFIG"], file=lives)
life = len((folder / f"{job}_{index}").read_text().splitlines())
def wait(path):
    while not (folder / path).exists():
        time.sleep(0.01)
"""


class Run:
    """A launcher and its tasks, which write their TF_CONFIG into `folder`, a line a life."""

    def __init__(self, folder, program, *flags, arguments=(), output=subprocess.PIPE):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        line = [str(SCRIPT), *flags, "--", sys.executable, "-S", "-c", PROGRAM + program, str(folder), *arguments]
        self.process = subprocess.Popen(line, stdout=output, stderr=subprocess.PIPE, text=True)

    def finish(self):
        """Returns the exit code, the lines of the tasks and what the launcher said."""
        out, errors = self.process.communicate(timeout=60)
        return self.process.returncode, (out or "").splitlines(), errors

    def lives(self, job, index=0):
        path = self.folder / f"{job}_{index}"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, *names):
        deadline = time.monotonic() + 30
        while not all((self.folder / name).exists() for name in names):
            assert time.monotonic() < deadline, f"{names} did not appear"
            time.sleep(0.02)


def gone(pid):
    """True where a process has ended, be it that nobody has asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_each_task_has_its_place(tmp_path):
    run = Run(tmp_path, "", "--chief=1", "--worker=2", "--ps=1", "--evaluator=1")
    assert run.finish()[0] == 0
    tasks = [("chief", 0), ("worker", 0), ("worker", 1), ("ps", 0), ("evaluator", 0)]
    for job, index in tasks:
        (config,) = run.lives(job, index)
        assert config["task"] == {"type": job, "index": index}
        assert config["cluster"] == run.lives("chief")[0]["cluster"]
        cluster = from_tf_config(json.dumps(config))
        assert (cluster.job, cluster.index, cluster.workers, cluster.servers) == (job, index, 3, 1)
    addresses = [address for listed in config["cluster"].values() for address in listed]
    assert "evaluator" not in config["cluster"]
    assert len(set(addresses)) == 4
    assert all(address.startswith("localhost:") for address in addresses)


def test_the_evaluator_can_be_listed(tmp_path):
    run = Run(tmp_path, "", "--evaluator=1", "--evaluator_in_cluster")
    assert run.finish()[0] == 0
    assert len(run.lives("evaluator")[0]["cluster"]["evaluator"]) == 1


def test_output_says_whose_it_is(tmp_path):
    program = "print('one'); sys.stderr.write('two\\nthree')"
    run = Run(tmp_path / "work", program, "--worker=1", f"--log_dir={tmp_path / 'logs'}")
    code, lines, _ = run.finish()
    assert code == 0
    assert sorted(lines) == sorted(
        f"{name} | {text}" for name in ("chief 0", "worker 0") for text in ("one", "two", "three")
    )
    assert (tmp_path / "logs" / "worker_0.log").read_text() == "one\ntwo\nthree\n"


def test_colours_are_for_terminals(tmp_path):
    reader, writer = pty.openpty()
    run = Run(tmp_path, "print('one')", output=writer)
    assert run.finish()[0] == 0
    os.close(writer)
    assert os.read(reader, 1000) == b"\x1b[31mchief 0 |\x1b[0m one\r\n"
    os.close(reader)


def test_an_error_ends_all_and_is_the_exit_code(tmp_path):
    program = "print(os.getpid(), flush=True)\nif name == 'worker 1':\n    wait('chief_0'); sys.exit(3)\ntime.sleep(60)"
    code, lines, errors = Run(tmp_path, program, "--worker=2", "--ps=1").finish()
    assert code == 3
    assert errors == "error: worker 1 left with 3, which a restart does not mend; all other tasks are stopped.\n"
    assert all(gone(int(line.split()[-1])) for line in lines)


def test_tasks_that_do_not_mind_sigterm_are_killed(tmp_path):
    program = (
        "if name == 'chief 0':\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN); (folder / 'deaf').touch(); time.sleep(60)\n"
        "wait('deaf'); sys.exit(2)"
    )
    started = time.monotonic()
    assert Run(tmp_path, program, "--worker=1", "--kill_after_secs=0.2").finish()[0] == 2
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("end", ["sys.exit(138)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_lost_task_starts_again_on_its_port(tmp_path, end):
    program = (
        f"if name == 'worker 0' and life == 1:\n    {end}\nif name == 'worker 0':\n    (folder / 'again').touch()\n"
    )
    run = Run(tmp_path, program + "wait('again')", "--worker=2")
    code, _, errors = run.finish()
    assert code == 0
    assert errors == f"worker 0 left with {138 if '138' in end else 137}; starts again (2 restarts left)\n"
    first, second = run.lives("worker", 0)
    assert first == second
    assert [len(run.lives("chief")), len(run.lives("worker", 1))] == [1, 1]


def test_restarts_are_counted(tmp_path):
    run = Run(tmp_path, "sys.exit(138)", "--restarts=2")
    code, _, errors = run.finish()
    assert code == 138
    assert len(run.lives("chief")) == 3
    assert (
        errors.splitlines()[-1]
        == "error: chief 0 left with 138, and no restarts are left; all other tasks are stopped."
    )


@pytest.mark.parametrize("how", ["--gang", "--distribution=multi_worker_mirrored"])
def test_a_gang_starts_again_together(tmp_path, how):
    program = (
        "if job != 'evaluator' and life == 1:\n"
        "    wait('evaluator_0'); wait('chief_0')\n"
        "    if name == 'worker 0': sys.exit(138)\n"
        "    time.sleep(60)\n"
        "if name == 'worker 0': (folder / 'again').touch()\n"
        "wait('again')"
    )
    flags = ["--worker=1", "--evaluator=1", "--restarts=1"]
    run = Run(tmp_path, program, *flags, *[how] * (how == "--gang"), arguments=[how] * (how != "--gang"))
    code, _, errors = run.finish()
    assert (code, errors) == (0, "worker 0 left with 138; all that train start again (0 restarts left)\n")
    for job in ("chief", "worker"):
        first, second = run.lives(job)
        assert set(first["cluster"]["chief"]).isdisjoint(second["cluster"]["chief"])
    assert run.lives("chief")[1]["cluster"] == run.lives("worker")[1]["cluster"]
    assert len(run.lives("evaluator")) == 1


def test_servers_are_ended_after_the_others(tmp_path):
    program = "if job == 'ps':\n    print(os.getpid(), flush=True); time.sleep(60)"
    code, lines, errors = Run(tmp_path, program, "--ps=1", "--ps_grace_secs=0.3").finish()
    assert (code, errors) == (0, "")
    assert all(gone(int(line.split()[-1])) for line in lines)


def test_servers_have_time_to_leave(tmp_path):
    program = "if job == 'ps':\n    wait('chief_0'); time.sleep(0.3); print('left')"
    code, lines, _ = Run(tmp_path, program, "--ps=1").finish()
    assert (code, lines) == (0, ["ps 0 | left"])


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)])
def test_signals_reach_all_tasks_and_nothing_starts_again(tmp_path, sent, code):
    program = (
        "def leave(number, frame):\n"
        "    time.sleep(0.2); print('saved', number, flush=True); sys.exit(143)\n"
        f"signal.signal({int(sent)}, leave)\n"
        "(folder / f'ready_{job}').touch(); time.sleep(60)"
    )
    run = Run(tmp_path, program, "--worker=1", "--evaluator=1")
    run.wait_for("ready_chief", "ready_worker", "ready_evaluator")
    run.process.send_signal(sent)
    left, lines, errors = run.finish()
    assert (left, errors) == (code, "")
    assert sorted(lines) == [f"{name} 0 | saved {int(sent)}" for name in ("chief", "evaluator", "worker")]
    assert len(run.lives("chief")) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux")
def test_tasks_die_with_the_launcher(tmp_path):
    program = "(folder / 'new').write_text(str(os.getpid())); os.rename(folder / 'new', folder / 'pid'); time.sleep(60)"
    run = Run(tmp_path, program)
    run.wait_for("pid")
    run.process.kill()
    run.finish()
    pid, deadline = int((tmp_path / "pid").read_text()), time.monotonic() + 10
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gone(pid)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--chief=1"], "no command given; write it after --"),
        (["--chief=2", "--", "true"], "--chief=2: a cluster has one chief at most; give --chief=1."),
        (["--evaluator=2", "--", "true"], "one evaluator at most"),
        (["--chief=0", "--", "true"], "--chief=0 without workers leaves nobody to train"),
        (["--chief=0", "--worker=-1", "--", "true"], "--worker=-1 is below 0"),
        (["--worker=many", "--", "true"], "invalid int value: 'many'"),
        (["--wrokers=2", "--", "true"], "unrecognized arguments: --wrokers=2"),
        (["--", "no_such_program"], "cannot run 'no_such_program'"),
    ],
)
def test_bad_input_is_one_line(flags, message):
    done = subprocess.run([str(SCRIPT), *flags], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
