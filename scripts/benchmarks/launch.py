"""Measures the cost of the launcher: the time from the start of a process to its first step, and scaling over workers.

    python scripts/benchmarks/launch.py --module=path/to/saved_model --pictures=path/to/folder --size=64
    python scripts/benchmarks/launch.py --module=... --pictures=... --size=64 --scaling

The first table times `estimator-tl train` and the same frozen network written by hand (launch_plain.py) in turns, each
in a separate process, until the checkpoint of the first step exists. The goal is a ratio of at most 1.1. The script
also times `estimator-tl --help`, with a goal of 0.3 s, and counts its imports.

With --scaling it trains on clusters of 1 to --workers workers on this machine, which share its cores. It prints the
examples per second of each cluster, and their ratio to one process.

Times vary on a machine with other work, so the script prints medians, and the ratio of each pair of turns.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PLAIN = Path(__file__).with_name("launch_plain.py")
_RATE = re.compile(r"([\d.]+) examples/s(?: \([\d.]+ a replica\))? on average")


def parse_arguments() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", required=True, help="a TF2 SavedModel for images.")
    parser.add_argument("--pictures", required=True, help="a folder with one subfolder for each class.")
    parser.add_argument("--size", type=int, required=True, help="height and width of the module's input in pixels.")
    parser.add_argument("--rounds", type=int, default=7, help="pairs to time (default: %(default)s).")
    parser.add_argument("--scaling", action="store_true", help="train on clusters, too.")
    parser.add_argument("--workers", type=int, default=2, help="maximum number of workers (default: %(default)s).")
    parser.add_argument("--steps", type=int, default=200, help="training steps of each cluster (default: %(default)s).")
    return parser.parse_args()


def environment() -> dict[str, str]:
    """Returns the environment of the processes."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}


def ours(arguments: argparse.Namespace, model_dir: str, steps: int, *flags: str) -> list[str]:
    """Returns the command that trains with the launcher."""
    return [
        *(sys.executable, "-m", "estimator_tl", "train", f"--backbone={arguments.module}"),
        *(f"--train_data={arguments.pictures}", f"--model_dir={model_dir}", f"--train_steps={steps}"),
        *("--validation_fraction=0", "--verbosity=error", f"--save_checkpoints_steps={steps}", *flags),
    ]


def by_hand(arguments: argparse.Namespace, model_dir: str) -> list[str]:
    """Returns the command that runs the hand-written program."""
    return [sys.executable, str(_PLAIN), arguments.module, arguments.pictures, model_dir, str(arguments.size), "1"]


def seconds_to_first_step(command: list[str], model_dir: str) -> float:
    """Returns the seconds from the start of a command until its model_dir contains the checkpoint of step 1."""
    written = Path(model_dir, "model.ckpt-1.index")
    started = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment(), **quiet) as process:
        while not written.exists():
            if process.poll() is not None and not written.exists():
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode} before its first step")
            time.sleep(0.005)
        taken = time.perf_counter() - started
        process.wait()
    return taken


def first_steps(arguments: argparse.Namespace) -> None:
    """Prints the table of the first step."""
    pairs = []
    for number in range(arguments.rounds + 1):  # the first pair only fills the file cache
        with tempfile.TemporaryDirectory() as folder:
            runs = {
                "ours": lambda: seconds_to_first_step(ours(arguments, f"{folder}/ours", 1), f"{folder}/ours"),
                "plain": lambda: seconds_to_first_step(by_hand(arguments, f"{folder}/plain"), f"{folder}/plain"),
            }
            order = list(runs) if number % 2 else list(reversed(list(runs)))
            pairs.append({name: runs[name]() for name in order})
    pairs = pairs[1:]
    ratios = sorted(pair["ours"] / pair["plain"] for pair in pairs)
    print(f"{'start to first step':24} {'median, s':>10}")
    for name, label in (("plain", "written by hand"), ("ours", "estimator-tl train")):
        print(f"{label:24} {statistics.median(pair[name] for pair in pairs):10.2f}")
    print(f"ratio {statistics.median(ratios):.3f} [{ratios[0]:.3f}, {ratios[-1]:.3f}] of {len(ratios)} pairs")


def help_text() -> None:
    """Prints the duration of `estimator-tl --help`, and its imports."""
    command = [sys.executable, "-m", "estimator_tl", "--help"]
    bare = [sys.executable, "-c", "pass"]
    taken: dict[str, list[float]] = {"help": [], "bare": []}
    for _ in range(11):
        for name, line in (("help", command), ("bare", bare)):
            started = time.perf_counter()
            subprocess.run(line, env=environment(), check=True, stdout=subprocess.DEVNULL)
            taken[name].append(time.perf_counter() - started)
    code = "import sys; from estimator_tl.cli.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=True, capture_output=True, text=True)
    modules = done.stderr.split()
    heavy = [name for name in ("tensorflow", "numpy", "h5py") if name in modules]
    print(
        f"estimator-tl --help: {statistics.median(taken['help']):.3f} s, of which Python itself "
        f"{statistics.median(taken['bare']):.3f} s; {len(modules)} modules, {', '.join(heavy) or 'no TensorFlow'}"
    )


def scaling(arguments: argparse.Namespace) -> None:
    """Prints the training speed of clusters on this machine."""
    kinds = [("one process", [])]
    for workers in range(1, arguments.workers + 1):
        kinds.append((f"parameter server, {workers} workers", ["--chief=1", f"--worker={workers - 1}", "--ps=1"]))
    for workers in range(2, arguments.workers + 1):
        kinds.append((f"MultiWorkerMirrored, {workers} workers", ["--chief=1", f"--worker={workers - 1}"]))
    print(f"{'cluster':34} {'examples/s':>10} {'to one process':>15}")
    single = None
    for name, tasks in kinds:
        with tempfile.TemporaryDirectory() as folder:
            command = ours(arguments, f"{folder}/run", arguments.steps)
            if tasks:
                command = [sys.executable, str(ROOT / "scripts" / "local_cluster"), *tasks, "--", *command]
            done = subprocess.run(command, env=environment(), check=True, capture_output=True, text=True)
        rate = float(_RATE.findall(done.stderr + done.stdout)[-1])
        single = single or rate
        print(f"{name:34} {rate:10.1f} {rate / single:15.2f}", flush=True)


def main() -> None:
    """Prints the tables."""
    arguments = parse_arguments()
    help_text()
    first_steps(arguments)
    if arguments.scaling:
        scaling(arguments)


if __name__ == "__main__":
    main()
