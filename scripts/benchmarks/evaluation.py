"""Measures the cost of evaluations for a run: evaluations of checkpoints, and of the values in the training session.

    python scripts/benchmarks/evaluation.py --module=path/to/backbone --pictures=path/to/folder

Times two runs of `estimator-tl train` in turns, each in a separate process: one with a checkpoint and an evaluation
every --every steps, and one with the same evaluations by --eval_every_steps and one checkpoint at the end. Checks that
both have the same metrics. Prints the medians, the ratio of each pair, and the seconds that each evaluation saves.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def parse_arguments() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", required=True, help="a backbone for images.")
    parser.add_argument("--pictures", required=True, help="a folder with one subfolder for each class.")
    parser.add_argument("--steps", type=int, default=100, help="training steps (default: %(default)s).")
    parser.add_argument("--every", type=int, default=10, help="steps between evaluations (default: %(default)s).")
    parser.add_argument("--tuning", default="full", help="the tuning policy (default: %(default)s).")
    parser.add_argument("--rounds", type=int, default=3, help="pairs to time (default: %(default)s).")
    return parser.parse_args()


def seconds_of(arguments: argparse.Namespace, model_dir: Path, *flags: str) -> tuple[float, list[dict[str, float]]]:
    """Runs a training; returns its duration in seconds, and its evaluations."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [
        *(sys.executable, "-m", "estimator_tl", "train", f"--backbone={arguments.module}", "--deterministic"),
        *(f"--train_data={arguments.pictures}", f"--model_dir={model_dir}", f"--train_steps={arguments.steps}"),
        *(f"--tuning={arguments.tuning}", "--batch_size=8", "--backbone_dropout=false", "--verbosity=error", *flags),
    ]
    started = time.perf_counter()
    subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - started
    return seconds, [json.loads(line) for line in (model_dir / "evaluations.jsonl").read_text().splitlines()]


def main() -> None:
    """Prints the comparison."""
    arguments = parse_arguments()
    kinds = {
        "checkpoints": [f"--save_checkpoints_steps={arguments.every}"],
        "in memory": [f"--save_checkpoints_steps={arguments.steps}", f"--eval_every_steps={arguments.every}"],
    }
    pairs = []
    for number in range(arguments.rounds):
        taken, found = {}, {}
        for kind in sorted(kinds, reverse=bool(number % 2)):
            with tempfile.TemporaryDirectory() as folder:
                taken[kind], found[kind] = seconds_of(arguments, Path(folder, "run"), *kinds[kind])
        if found["checkpoints"] != found["in memory"]:
            raise SystemExit(f"the evaluations differ: {found['checkpoints']}, {found['in memory']}")
        pairs.append(taken)
    for kind in kinds:
        print(f"{kind.ljust(12)} {statistics.median(pair[kind] for pair in pairs):7.1f} s")
    ratios = sorted(pair["in memory"] / pair["checkpoints"] for pair in pairs)
    print(f"in memory / checkpoints: {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
    count = arguments.steps // arguments.every
    saved = statistics.median((pair["checkpoints"] - pair["in memory"]) / count for pair in pairs)
    print(f"{count} evaluations, the same numbers; each {saved:.2f} s shorter")


if __name__ == "__main__":
    main()
