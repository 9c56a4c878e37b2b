"""Measures the image pipeline without training, as a whole and stage by stage, on generated JPEG files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from throughput_pacing import Sample

import estimator_tl as etl
from estimator_tl.compat import tf
from estimator_tl.specs import ImageSpec

HEIGHT, WIDTH = 384, 512  # rows of whole cache lines, so reading an image from memory copies nothing
_QUALITY = 90
_CLASSES = 2
_BATCH = 32


def write_pictures(folder: str, count: int) -> None:
    """Writes an image folder with smooth and slightly noisy images, which compress like photos."""
    random = np.random.default_rng(0)
    for index in range(count):
        coarse = random.uniform(0, 255, [HEIGHT // 32, WIDTH // 32, 3])
        smooth = tf.image.resize(coarse, [HEIGHT, WIDTH], "bicubic").numpy()
        pixels = np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        path = os.path.join(folder, f"class_{index % _CLASSES}", f"{index}.jpg")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        tf.io.write_file(path, tf.io.encode_jpeg(pixels, quality=_QUALITY))


def measure_pictures(folder: str, spec: ImageSpec, batch_size: int, rounds: int) -> dict[str, list[Sample]]:
    """Measures passes over a folder, for each stage and for the whole pipeline, in turns.

    Args:
      folder: from `write_pictures`.
      spec: the image format of the backbone.
      batch_size: batch size of the whole pipeline.
      rounds: number of passes, after one pass that is not counted.

    Returns:
      A sample for each round, by the name of the stage.
    """
    pictures = etl.inputs.image_folder(folder)
    passes = _stages(pictures.examples().items, spec)
    passes["whole etl.inputs pipeline"] = pictures.input_fn(spec, batch_size, training=True, epochs=1)()
    samples: dict[str, list[Sample]] = {name: [] for name in passes}
    for number in range(rounds + 1):
        for name, dataset in passes.items():
            start = (time.perf_counter(), time.process_time())
            for _ in dataset:
                pass
            if number:
                samples[name].append(Sample(time.perf_counter() - start[0], time.process_time() - start[1]))
    return samples


def _stages(paths: tuple[str, ...], spec: ImageSpec) -> dict[str, Any]:
    """Returns a dataset for each stage that runs only this stage, on inputs in memory."""

    def decode(encoded: Any) -> Any:
        return tf.io.decode_image(encoded, channels=spec.channels, expand_animations=False)

    def resize(pixels: Any, antialias: bool) -> Any:
        return tf.image.resize(tf.cast(pixels, tf.float32), [spec.height, spec.width], antialias=antialias)

    encoded = [tf.io.read_file(path) for path in paths]
    decoded = tf.stack([decode(bytes_) for bytes_ in encoded])
    resized = tf.concat([resize(picture[tf.newaxis], True) for picture in decoded], 0)
    return {
        "read": _stage(tf.io.read_file, tf.constant(paths)),
        "decode": _stage(decode, tf.stack(encoded)),
        "resize, antialias": _stage(lambda pixels: resize(pixels, True), decoded),
        "resize, no antialias": _stage(lambda pixels: resize(pixels, False), decoded),
        "preprocess": _stage(spec.preprocess, resized),
    }


def _stage(function: Callable[[Any], Any], inputs: Any) -> Any:
    def one_value(index: Any) -> Any:
        result = function(inputs[index])
        # Only one number of the result, so batching and Python's loop add no time.
        return tf.strings.length(result) if result.dtype == tf.string else tf.reshape(result, [-1])[0]

    return tf.data.Dataset.range(len(inputs)).map(one_value, num_parallel_calls=os.cpu_count()).batch(_BATCH)
