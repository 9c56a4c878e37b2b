"""scripts/slurm.sbatch with stand-ins for srun, scontrol and estimator-tl."""

from __future__ import annotations

import re
import signal
import subprocess
import time

import pytest

from estimator_tl.cli.cluster_flags import cluster_of, define_cluster
from estimator_tl.cli.command import CommandFlags
from tests.scripts.fakes import SCRIPTS, Fakes

# Starts a task a rank on two nodes; the end of a bad one kills the others; gives back the highest code.
SRUN = """
import os, signal, subprocess, sys, time
with open("srun_pid", "w") as stream:
    stream.write(str(os.getpid()))
words = sys.argv[1:]
kill = "--kill-on-bad-exit=1" in words
while words[0].startswith("--"):
    words.pop(0)
count = int(os.environ["SLURM_NTASKS"])
tasks = [subprocess.Popen(words, start_new_session=True, env={**os.environ, "SLURM_PROCID": str(rank),
    "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_TASKS_PER_NODE": f"{count - 1},1"}) for rank in range(count)]
def forward(number, frame):
    for task in tasks:
        os.killpg(task.pid, number)
signal.signal(signal.SIGUSR1, forward)
signal.signal(signal.SIGTERM, forward)
codes = {}
while len(codes) < count:
    time.sleep(0.02)
    for rank, task in enumerate(tasks):
        if rank not in codes and task.poll() is not None:
            codes[rank] = task.returncode if task.returncode >= 0 else 128 - task.returncode
            for other in tasks:
                if kill and codes[rank] and other.poll() is None:
                    os.killpg(other.pid, signal.SIGKILL)
sys.exit(max(codes.values()))
"""
# Leaves with the code for its rank, or waits; a signal that it can see makes it save and leave with 143.
TRAIN = """
import os, signal, sys, time
rank = os.environ["SLURM_PROCID"]
def leave(number, frame):
    time.sleep(0.3 * int(rank)); print("saved", rank, flush=True); sys.exit(143)
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, leave)
names = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
with open(f"task_{rank}", "w") as stream:
    print(*sys.argv[1:], "", *(f"{name}={os.environ[name]}" for name in names), sep="\\n", file=stream)
code = os.environ["CODES"].split(",")[int(rank)]
if code == "wait":
    time.sleep(60)
time.sleep(0.2)
if code == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(code))
"""


@pytest.fixture
def slurm(tmp_path):
    fakes = Fakes(tmp_path)
    fakes.python("srun", SRUN)
    fakes.python("estimator-tl", TRAIN)
    fakes.recorder("scontrol")
    return fakes


def start(slurm, codes, *flags, **environment):
    count = str(len(codes.split(",")))
    known = {"SLURM_JOB_ID": "77", "SLURM_SUBMIT_DIR": str(slurm.folder), "SLURM_NTASKS": count, "CODES": codes}
    return slurm.start("slurm.sbatch", *(flags or ["--flagfile=train.flags"]), **{**known, **environment})


def finish(process):
    out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


REQUEUED = [["scontrol", "requeue", "77"]]


@pytest.mark.parametrize(
    ("codes", "code", "calls", "said"),
    [
        ("0,0,0", 0, [], ""),
        ("143,143,143", 143, REQUEUED, "left with 143; requeued"),
        ("0,138,138", 138, REQUEUED, "left with 138; requeued"),
        ("wait,kill", 137, REQUEUED, "left with 137; requeued"),
        ("2,2,2", 2, [], "error: task"),
        ("0,wait,2", 2, [], "error: task 2 left with 2, which another try does not mend; not requeued."),
        ("wait,1", 1, [], "error: task 1 left with 1"),
    ],
)
def test_exit_codes(slurm, codes, code, calls, said):
    """In the last but one the first code that srun sees is 2, the highest the 137 of the task that it kills then."""
    left, _, errors = finish(start(slurm, codes))
    assert (left, slurm.calls()) == (code, calls)
    assert said in errors
    assert not list(slurm.folder.glob(".left*"))


def test_each_task_finds_its_place(slurm):
    """From what srun sets to the Cluster that train works with."""
    process = start(slurm, "0,0,0", "--flagfile=a b.flags", JOBS="chief:1,worker:1,evaluator:1", PORT_BASE="9000")
    assert finish(process)[0] == 0
    addresses = []
    for rank in range(3):
        arguments, variables = (slurm.folder / f"task_{rank}").read_text().split("\n\n")
        name, *flags = arguments.splitlines()
        assert (name, flags[-1]) == ("train", "--flagfile=a b.flags")
        known = CommandFlags()
        define_cluster(known)
        known.values(["train", *flags[:-1]])
        cluster = cluster_of(known.values, dict(line.split("=", 1) for line in variables.splitlines()))
        addresses.append((cluster.job, cluster.address()))
    assert addresses == [("chief", "n1:9000"), ("worker", "n1:9001"), ("evaluator", "n2:9000")]


def wait_for_tasks(slurm, count):
    deadline = time.monotonic() + 30
    while not all((slurm.folder / f"task_{rank}").exists() for rank in range(count)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_all_save_before_the_time_limit(slurm):
    """As --signal=USR1@120 has it: to tasks and their shells, not to the script; the first to leave ends no other."""
    process = start(slurm, "wait,wait")
    wait_for_tasks(slurm, 2)
    subprocess.run(["kill", "-USR1", (slurm.folder / "srun_pid").read_text()], check=True)
    left, out, _ = finish(process)
    assert (left, slurm.calls()) == (143, REQUEUED)
    assert sorted(out.splitlines()) == ["saved 0", "saved 1"]


def test_what_is_cancelled_is_not_requeued(slurm):
    process = start(slurm, "wait")
    wait_for_tasks(slurm, 1)
    process.send_signal(signal.SIGTERM)
    subprocess.run(["kill", (slurm.folder / "srun_pid").read_text()], check=True)
    assert finish(process)[0] == 143
    assert slurm.calls() == []


def test_requeues_have_an_end(slurm):
    left, _, errors = finish(start(slurm, "138", SLURM_RESTART_COUNT="2", MAX_REQUEUES="2"))
    assert (left, slurm.calls()) == (138, [])
    assert errors == "error: requeued 2 times already; raise MAX_REQUEUES to go on.\n"
    assert finish(start(slurm, "138", SLURM_RESTART_COUNT="1", MAX_REQUEUES="2"))[0] == 138
    assert slurm.calls() == REQUEUED


def test_flags_are_needed(slurm):
    done = subprocess.run(["bash", str(SCRIPTS / "slurm.sbatch")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: no flags of train given")


def test_what_slurm_reads():
    """The directives stand before the first command, where sbatch stops to look for them, and fit each other."""
    text = (SCRIPTS / "slurm.sbatch").read_text()
    directives = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text.partition("\nset -")[0], re.MULTILINE))
    assert directives["signal"] == "USR1@120"
    assert "requeue" in directives
    (jobs,) = re.findall(r"\${JOBS:=(.*?)}", text)
    assert int(directives["ntasks"]) == sum(int(job.partition(":")[2]) for job in jobs.split(","))
    assert subprocess.run(["bash", "-n", str(SCRIPTS / "slurm.sbatch")], check=False).returncode == 0
