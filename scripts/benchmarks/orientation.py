"""Measures the cost of reading images upright and on white, instead of as they are stored.

    python scripts/benchmarks/orientation.py
    python scripts/benchmarks/orientation.py --sizes=100,500 --images=200

Reads, decodes and resizes each kind of file to 224 x 224, by the current rules and by the first rules, which ignore
orientation and transparency, in turns and in one process. Prints the milliseconds per image by the first and by the
current rules, and the median of their ratios; 1 means no difference. The ratios of sideways and transparent images
include the cost of turning and compositing them.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

from estimator_tl.compat import tf
from estimator_tl.inputs.images.feature import decode_image
from estimator_tl.specs import ImageSpec, linear_range

_TODAY = ImageSpec(224, 224, 3, linear_range(0, 1), "[0, 1]")
_FIRST = dataclasses.replace(_TODAY, rules=1)
_KINDS = ("JPEG", "JPEG, upright", "JPEG, sideways", "PNG", "PNG, transparent")


def parse_arguments() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,500,2000", help="image sizes in pixels (default: %(default)s).")
    parser.add_argument("--images", type=int, default=100, help="images per measurement (default: %(default)s).")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each kind (default: %(default)s).")
    return parser.parse_args()


def encode(kind: str, size: int) -> bytes:
    """Returns the bytes of an image file of one kind, smooth with some noise like a photo."""
    draw = np.random.RandomState(0)
    channels = 3 + kind.endswith("transparent")
    small = Image.fromarray(draw.randint(0, 256, (size // 8, size // 8, channels), np.uint8))
    image, stream, exif = small.resize((size, size)), io.BytesIO(), Image.Exif()
    for word, orientation in (("upright", 1), ("sideways", 6)):
        if kind.endswith(word):
            exif[0x0112] = orientation
    image.save(stream, kind.partition(",")[0], exif=exif)
    return stream.getvalue()


def batches(path: str, kind: str, spec: ImageSpec, count: int) -> Iterator[object]:
    """Returns an endless iterator over batches; one thread computes each batch when it is requested."""

    @tf.autograph.experimental.do_not_convert
    def load(file: object) -> object:
        return decode_image(tf.io.read_file(file), spec, (kind.partition(",")[0],))

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_optimization.inject_prefetch = False
    options.threading.private_threadpool_size = 1
    return iter(tf.data.Dataset.from_tensors(path).repeat().map(load).batch(count).with_options(options))


def measure(path: str, kind: str, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """Returns the milliseconds per image by the first and by the current rules, and the median of their ratios."""
    iterators = [batches(path, kind, spec, arguments.images) for spec in (_FIRST, _TODAY)]
    for iterator in iterators:
        next(iterator)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(arguments.repeats):
        for iterator, taken in zip(iterators, times):
            begin = time.perf_counter()
            next(iterator)
            taken.append((time.perf_counter() - begin) / arguments.images * 1000)
    ratio = statistics.median(today / first for first, today in zip(*times))
    return statistics.median(times[0]), statistics.median(times[1]), ratio


def main() -> None:
    """Prints a row for each kind and size."""
    arguments = parse_arguments()
    print(f"{'kind':18} {'pixels':>6} {'kB':>6} {'first, ms':>10} {'today, ms':>10} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, arguments.sizes.split(",")):
            for kind in _KINDS:
                path = Path(folder, "image")
                path.write_bytes(encode(kind, size))
                first, today, ratio = measure(str(path), kind, arguments)
                kilobytes = path.stat().st_size / 1000
                print(f"{kind:18} {size:6} {kilobytes:6.0f} {first:10.2f} {today:10.2f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
