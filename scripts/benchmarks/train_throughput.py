"""Compares the training speed of estimator_tl, in examples/s, with programs that do not use it.

    python scripts/benchmarks/train_throughput.py --backbone=PATH --batch_size=32 --steps=5 --rounds=20

All contestants train the same network with Adam on the same batches in memory:
estimator_tl as its launcher runs it, a hand-written model_fn on a plain
Estimator, and Keras 2 `fit`. Each trains once with a frozen backbone and once
with the full backbone, and always calls the backbone for inference. The forward
pass of the backbone alone is the limit of frozen training.

Blocks of steps of all contestants take turns (see `throughput_pacing`). Ratios
are computed within a round, so they are more stable than the rates. CPU time
counts all threads of the process. It hardly depends on other work of the
machine, but does not include waiting; the clock includes both. On a busy machine,
use many short rounds and look at the intervals.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from estimator_tl.compat import quiet

if TYPE_CHECKING:
    from throughput_pacing import Sample

_TARGET = 0.95
_CLASSES = 5


def parse_arguments() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backbone",
        default="keras.MobileNet(alpha=0.25, weights=None)",
        help="a TF2 SavedModel folder, or any handle of etl.backbone (default: %(default)s).",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="examples per step (default: %(default)s).")
    parser.add_argument("--steps", type=int, default=5, help="timed steps per block (default: %(default)s).")
    parser.add_argument("--rounds", type=int, default=20, help="blocks of each contestant (default: %(default)s).")
    parser.add_argument("--tuning", choices=("frozen", "full", "both"), default="both", help="(default: both).")
    parser.add_argument(
        "--pictures", type=int, default=256, help="JPEGs for the image pipeline; 0 leaves it out (default: 256)."
    )
    return parser.parse_args()


def main() -> None:
    """Measures and prints the tables."""
    arguments = parse_arguments()
    quiet.import_tensorflow_quietly()
    quiet.set_log_level("error")
    import throughput_contestants
    import throughput_pictures
    from throughput_pacing import interleave
    from throughput_plain import plain_network

    import estimator_tl as etl
    from estimator_tl.compat import tf

    source = etl.backbone(arguments.backbone)
    network = plain_network(arguments.backbone, source)
    with tempfile.TemporaryDirectory() as folder:
        task = throughput_contestants.Task(source, network, arguments.batch_size, _CLASSES, folder)
        modes = ("frozen", "full") if arguments.tuning == "both" else (arguments.tuning,)
        trained = throughput_contestants.contestants(task, modes)
        samples = interleave(trained, arguments.steps, arguments.rounds, _progress)
        pictures: dict[str, list[Sample]] = {}
        if arguments.pictures:
            data = os.path.join(folder, "pictures")
            throughput_pictures.write_pictures(data, arguments.pictures)
            pictures = throughput_pictures.measure_pictures(
                data, source.image_spec, arguments.batch_size, arguments.rounds
            )
    _progress("")
    size = "x".join(map(str, source.image_spec.shape))
    print(f"TensorFlow {tf.__version__}, {arguments.backbone}")
    print(f"batch {arguments.batch_size} of {size}, {arguments.rounds} rounds of {arguments.steps} steps\n")
    print(_rates("training", samples, arguments.steps * arguments.batch_size))
    print(_ratios(samples, modes))
    if pictures:
        made = f"{throughput_pictures.HEIGHT}x{throughput_pictures.WIDTH} JPEG to {size}"
        print(_rates(f"pictures, {made}", pictures, arguments.pictures))


def _rates(title: str, samples: Mapping[str, Sequence[Sample]], examples: int) -> str:
    lines = [_line(title, "examples/s", "[quartiles]", "CPU ms/example")]
    for name, found in samples.items():
        rates = sorted(examples / sample.seconds for sample in found)
        low, high = rates[len(rates) // 4], rates[-1 - len(rates) // 4]
        cpu = statistics.median(1000 * sample.cpu_seconds / examples for sample in found)
        lines.append(_line(name, f"{statistics.median(rates):.1f}", f"[{low:.1f}, {high:.1f}]", f"{cpu:.2f}"))
    return "\n".join([*lines, ""])


def _ratios(samples: Mapping[str, Sequence[Sample]], modes: Sequence[str]) -> str:
    from throughput_contestants import BY_HAND, FIT, FORWARD, OURS

    lines = [_line("speed of estimator_tl / speed of", "ratio", "[95% interval]", "by CPU time") + "  [95% interval]"]
    for mode in modes:
        for other in (f"{BY_HAND}, {mode}", f"{FIT}, {mode}", FORWARD):
            pairs = list(zip(samples[f"{OURS}, {mode}"], samples[other]))
            clock = _median_interval([their.seconds / our.seconds for our, their in pairs])
            cpu = _median_interval([their.cpu_seconds / our.cpu_seconds for our, their in pairs])
            line = _line(f"{mode}: {other}", f"{clock[0]:.3f}", _bounds(clock), f"{cpu[0]:.3f}") + f"  {_bounds(cpu)}"
            lines.append(line)
            if other == f"{BY_HAND}, frozen":
                verdict = f"by the clock {_verdict(clock)}, by CPU time {_verdict(cpu)}"
                lines.append(f"    target {_TARGET}: {verdict}")
    return "\n".join([*lines, ""])


def _verdict(interval: tuple[float, float, float]) -> str:
    """Returns whether the whole interval is on one side of the target."""
    _, low, high = interval
    return "met" if low >= _TARGET else "missed" if high < _TARGET else "not decided (noise)"


def _bounds(interval: tuple[float, float, float]) -> str:
    return f"[{interval[1]:.3f}, {interval[2]:.3f}]"


def _line(name: str, value: str, spread: str, cpu: str) -> str:
    return f"{name:44}{value:>12}  {spread:16}{cpu:>15}"


def _median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the median, and the order statistics that enclose the true median with a probability of 95%."""
    ordered = sorted(values)
    half = 1.96 * math.sqrt(len(ordered)) / 2
    low = max(math.floor(len(ordered) / 2 - half) - 1, 0)
    return statistics.median(ordered), ordered[low], ordered[-1 - low]


def _progress(text: str) -> None:
    """Shows a line of progress, on terminals only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text:60}\r")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
