"""Measures the cost of loading a pretrained source: seconds, memory, and how often its values are read.

    python scripts/benchmarks/backbones.py
    python scripts/benchmarks/backbones.py --sources=keras_h5,tf1_hub --tuning=full --replicas=2

Every source contains the same network of 17 large convolutions (151 MB), so the benchmark measures weights instead of
graphs. It trains each source for a step and evaluates it, with `etl.make_model_fn` and an Estimator, in a separate
process. It does the same with a small network that has almost no weights, to measure the cost of TensorFlow alone.

For each source the table contains
- the seconds to open it, and from there to the end of the first step, minus the seconds of the small network;
- the peak memory of the process minus the peak of the small network, divided by the size of the weights; the goal is at
  most 2.5;
- the bytes that the process read from files, divided by the size of the weights: in total with one evaluation, and for
  each further evaluation. The latter is 1 if an evaluation reads its checkpoint and nothing else.

With --replicas, the bytes that a run reads should not grow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from backbones_sources import KINDS, PICTURE, save

_MEGABYTE = 1e6


def parse_arguments() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", default=",".join(KINDS), help="separated by commas (default: %(default)s).")
    parser.add_argument("--tuning", default="frozen", help="frozen or full (default: %(default)s).")
    parser.add_argument(
        "--replicas", type=int, default=1, help="replicas of MirroredStrategy on the CPU (default: %(default)s)."
    )
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--save", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--evaluations", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.sources.split(",")) - set(KINDS)
    if unknown:
        parser.error(f"--sources has no {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return arguments


def train(arguments: argparse.Namespace) -> dict[str, float]:
    """Trains one source in this process and returns its cost: seconds and bytes, by name."""
    import resource

    import numpy as np

    import estimator_tl as etl
    from estimator_tl.compat import estimator, quiet, tf

    quiet.silence_deprecations()
    tf.get_logger().setLevel("ERROR")
    devices = [f"/cpu:{number}" for number in range(arguments.replicas)]
    strategy = tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else None
    start = time.perf_counter()
    backbone = etl.backbone(arguments.train)
    opened = time.perf_counter() - start
    pictures = np.random.RandomState(0).rand(4, *PICTURE).astype(np.float32)

    def input_fn() -> tf.data.Dataset:
        return tf.data.Dataset.from_tensors(({"image": pictures}, [0, 1, 2, 0])).repeat()

    tuning = getattr(etl.tuning, arguments.tuning)()
    model_fn = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3), tuning, etl.optimizers.sgd(1e-3))
    with tempfile.TemporaryDirectory() as folder:
        session = tf.compat.v1.ConfigProto(device_count={"CPU": arguments.replicas}, allow_soft_placement=True)
        config = estimator.RunConfig(train_distribute=strategy, session_config=session, keep_checkpoint_max=1)
        trained = estimator.Estimator(model_fn, folder, config, params={})
        start = time.perf_counter()
        trained.train(input_fn, steps=1)
        first_step = time.perf_counter() - start
        for _ in range(arguments.evaluations):
            trained.evaluate(input_fn, steps=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"opened": opened, "first_step": first_step, "peak": peak, "read": _bytes_read()}


def _bytes_read() -> int:
    """Returns the bytes that this process has read from files, from the counter of Linux."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def in_a_process(*arguments: str):
    """Runs this script with these arguments in a separate process; returns the JSON value in its last line."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def measure(kind: str, root: str, arguments: argparse.Namespace) -> str:
    """Returns the row of the table for one kind of source."""
    settings = [f"--tuning={arguments.tuning}", f"--replicas={arguments.replicas}"]
    small, _ = in_a_process("--save", kind, "small", f"{root}/{kind}_small")
    large, weights = in_a_process("--save", kind, "large", f"{root}/{kind}_large")
    base = in_a_process(f"--train={small}", *settings)
    run = in_a_process(f"--train={large}", *settings)
    more = in_a_process(f"--train={large}", "--evaluations=3", *settings)
    above = {name: run[name] - base[name] for name in run}
    further = (more["read"] - run["read"]) / 2
    return (
        f"{kind:14} {weights / _MEGABYTE:7.0f} {above['opened']:8.2f} {above['first_step']:9.2f} "
        f"{above['peak'] / weights:7.2f} {above['read'] / weights:7.2f} {further / weights:13.2f}"
    )


def main() -> None:
    """Measures each source and prints a row for it."""
    arguments = parse_arguments()
    if arguments.save:
        print(json.dumps(save(*arguments.save)))
    elif arguments.train:
        print(json.dumps(train(arguments)))
    else:
        print(f"{'source':14} {'MB':>7} {'open, s':>8} {'step 1, s':>9} {'peak':>7} {'read':>7} {'+ evaluation':>13}")
        with tempfile.TemporaryDirectory() as root:
            for kind in arguments.sources.split(","):
                print(measure(kind, root, arguments), flush=True)


if __name__ == "__main__":
    main()
