"""Transfer from handwritten digits 0 to 4 to digits 5 to 9, in a few minutes and without a network.

A small network learns digits 0 to 4. Then 10 images of each of the digits
5 to 9 are learned with its help in several ways, and without it; the best
way is exported and asked about an image in a process of its own.

Usage: python scripts/demo/digits.py [--work_dir=DIR] [--seeds=5] [--steps=N]
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pictures

import estimator_tl as etl
from estimator_tl.compat import quiet

if TYPE_CHECKING:  # they import TensorFlow, which `main` first does quietly
    from transfer import Run, Strategy

    from estimator_tl.backbones import Backbone

_PARTS = {"0_to_4": range(5), "5_to_9": range(5, 10)}
_COLUMNS = "{:<14}{:>7}{:>22}{:>28}{:>9}"


def main() -> None:
    """Runs all stages."""
    arguments = _arguments()
    quiet.import_tensorflow_quietly()
    quiet.set_log_level("error")
    with tempfile.TemporaryDirectory() as temporary:
        _demo(arguments.work_dir or Path(temporary), arguments.seeds, arguments.steps)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work_dir", type=Path, help="new or empty folder to keep all files in; by default none is")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each strategy (default %(default)s)")
    parser.add_argument(
        "--steps",
        type=int,
        help="at most so many of each training, to see that all runs; the figures mean nothing then",
    )
    arguments = parser.parse_args()
    for name in ("seeds", "steps"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1.")
    folder = arguments.work_dir
    if folder and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        parser.error(f"--work_dir={folder} must be a new or an empty folder.")
    return arguments


def _demo(work_dir: Path, seeds: int, most_steps: int | None) -> None:
    started = time.monotonic()
    count = pictures.write_folders(work_dir / "pictures", _PARTS)
    print(f"images: {count} handwritten digits ({pictures.SIZE} x {pictures.SIZE}, grey) in class folders", flush=True)
    sources = _sources(work_dir, seeds, most_steps)
    strategy, runs = _compare(work_dir, sources, seeds, most_steps)
    middle = statistics.median_low(run.accuracy for run in runs)
    chosen = next(run for run in runs if run.accuracy == middle)
    _export_and_classify(work_dir, strategy, chosen, sources[0])
    print(f"done in {time.monotonic() - started:.0f} s", flush=True)


def _sources(work_dir: Path, seeds: int, most_steps: int | None) -> list[Backbone]:
    """Returns the pretrained network, and one with random weights for each seed."""
    import pretraining

    started = time.monotonic()
    folder = etl.inputs.image_folder(str(work_dir / "pictures" / "0_to_4"), validation=0.1)
    steps = min(pretraining.STEPS, most_steps or pretraining.STEPS)
    network, accuracy, count = pretraining.pretrain(folder, seed=0, steps=steps)
    pretraining.save(network, work_dir / "networks" / "pretrained")
    for seed in range(seeds):
        pretraining.save(pretraining.network(seed), work_dir / "networks" / f"untrained_{seed}")
    print(
        f"pretraining: digits 0 to 4, accuracy {accuracy:.1%} on {count} validation images "
        f"({time.monotonic() - started:.0f} s)",
        flush=True,
    )
    names = ["pretrained", *(f"untrained_{seed}" for seed in range(seeds))]
    return [etl.backbone(str(work_dir / "networks" / name)) for name in names]


def _compare(
    work_dir: Path, sources: Sequence[Backbone], seeds: int, most_steps: int | None
) -> tuple[Strategy, list[Run]]:
    """Prints the table; returns the strategy of the best median and its runs."""
    import transfer

    folder = etl.inputs.image_folder(str(work_dir / "pictures" / "5_to_9"))
    few = transfer.PER_CLASS * len(folder.labels)
    print(
        f"transfer: digits 5 to 9 from {transfer.PER_CLASS} images of each class, "
        f"tested on the other {len(folder.files) - few}\n",
        flush=True,
    )
    header = ("strategy", "steps", "trainable parameters", f"accuracy, median of {seeds}", "seconds")
    print(_COLUMNS.format(*header), flush=True)
    results = []
    for strategy in transfer.strategies():
        strategy = dataclasses.replace(strategy, steps=min(strategy.steps, most_steps or strategy.steps))
        runs = []
        for seed in range(seeds):
            source = sources[0 if strategy.pretrained else 1 + seed]
            model_dir = work_dir / "runs" / strategy.name.replace(" ", "_") / str(seed)
            runs.append(transfer.run(strategy, source, folder, seed, model_dir))
        print(_row(strategy, runs), flush=True)
        results.append((strategy, runs))
    return max(results, key=lambda result: statistics.median(run.accuracy for run in result[1]))


def _row(strategy: Strategy, runs: Sequence[Run]) -> str:
    accuracies = [run.accuracy for run in runs]
    return _COLUMNS.format(
        strategy.name,
        strategy.steps,
        f"{runs[0].parameters:,}",
        f"{statistics.median(accuracies):.1%} ({min(accuracies):.1%} - {max(accuracies):.1%})",
        f"{statistics.median(run.seconds for run in runs):.1f}",
    )


def _export_and_classify(work_dir: Path, strategy: Strategy, run: Run, source: Backbone) -> None:
    """Exports a run, and asks the export about a test image in a process without estimator_tl."""
    export = etl.export_saved_model(run.estimator, str(work_dir / "export"), source.image_spec, run.test.labels)
    print(f"\nexport: {strategy.name}, seed {run.seed} (its median run), as a SavedModel for TF Serving", flush=True)
    examples = run.test.examples()
    number = random.Random(run.seed).randrange(len(examples))
    digit = run.test.labels[examples.labels[number]]
    print(f"classification: a test image of digit {digit}, in a process that imports TensorFlow only", flush=True)
    script = Path(__file__).with_name("classify_export.py")
    # TensorFlow's start-up messages are of no interest unless something fails.
    done = subprocess.run([sys.executable, script, export, examples.items[number]], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{script.name} failed:\n{done.stderr}")


if __name__ == "__main__":
    main()
