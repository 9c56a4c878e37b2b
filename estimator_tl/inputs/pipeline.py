"""The tf.data pipelines: they shuffle example numbers, then read, decode, batch and prefetch the examples."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.inputs.images.decoding import KINDS
from estimator_tl.inputs.images.feature import decode_image
from estimator_tl.specs import INPUT_POSITION, InputSpec, TextSpec
from estimator_tl.tf_internals.files.checkpoint_state import newest_checkpoint


@dataclasses.dataclass(frozen=True)
class Examples:
    """Files or texts, and their class numbers.

    Attributes:
      items: one file or one text for each example.
      labels: the class number of each example; empty where the classes are unknown.
      kinds: the kinds of images that may be among the files; a graph with fewer kinds starts faster.
    """

    items: tuple[str, ...]
    labels: tuple[int, ...] = ()
    kinds: tuple[str, ...] = tuple(KINDS)

    def __len__(self) -> int:
        return len(self.items)


def latest_step(model_dir: str | None) -> int:
    """Returns the global step of a run's newest complete checkpoint; 0 for a run without checkpoints.

    Raises:
      UserError: the run lists checkpoints, but all of them are damaged.
    """
    newest = newest_checkpoint(model_dir)
    return newest.step if newest else 0


def training_dataset(
    examples: Examples,
    spec: InputSpec,
    batch_size: int,
    seed: int,
    epochs: int | None = None,
    first_batch: int = 0,
    shard: tuple[int, int] = (1, 0),
) -> Any:
    """Returns shuffled batches (features, labels) for training.

    The order is stateless: the seed and a position alone decide which example is at this position. So a pipeline can
    begin at any batch. Each epoch is another permutation. A batch may hold the end of one epoch and the start of the
    next.

    Args:
      examples: at least one.
      spec: the form that the backbone takes.
      batch_size: examples in a batch.
      seed: the seed of the order.
      epochs: how often to repeat the examples; None for no end.
      first_batch: the batch to begin at, counted over all pipelines.
      shard: how many pipelines share the batches, and the number of this one.
    """
    count = len(examples)
    end = count * epochs if epochs is not None else tf.int64.max
    positions = tf.data.Dataset.range(first_batch * batch_size, end)
    if shard[0] > 1:
        positions = positions.batch(batch_size).shard(*shard).unbatch()
    tf.compat.v1.add_to_collection(INPUT_POSITION, first_batch)

    def example_at(position: Any) -> Any:
        epoch, offset = position // count, position % count
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        return tf.random.experimental.index_shuffle(offset, key, tf.constant(count - 1, tf.int64))

    is_endless = epochs is None  # then no batch is smaller than the others, and the batch size is static
    return _load_batches(positions.map(_without_autograph(example_at)), examples, spec, batch_size, is_endless)


def evaluation_dataset(examples: Examples, spec: InputSpec, batch_size: int) -> Any:
    """Returns batches of all examples, once and in order; (features, labels), or features where labels are unknown."""
    return _load_batches(tf.data.Dataset.range(len(examples)), examples, spec, batch_size)


def _without_autograph(function: Any) -> Any:
    """Keeps AutoGraph from converting a function, which would take longer than building the whole pipeline."""
    return tf.autograph.experimental.do_not_convert(function)


def _strings(items: Sequence[str]) -> Callable[[Any], Any]:
    """Returns a function from an int64 index to a scalar string.

    All strings are joined in one constant: TensorFlow takes minutes to start a graph with 100,000 string constants.
    """
    # File names need not be UTF-8: `os` returns them with surrogates.
    encoded = [item.encode("utf-8", "surrogateescape") for item in items]
    joined = tf.constant(b"".join(encoded))
    bounds = tf.constant(list(itertools.accumulate(map(len, encoded), initial=0)), tf.int64)

    def item_at(index: Any) -> Any:
        return tf.strings.substr(joined, bounds[index], bounds[index + 1] - bounds[index])

    return item_at


def _load_batches(
    indices: Any, examples: Examples, spec: InputSpec, batch_size: int, drop_remainder: bool = False
) -> Any:
    item_at = _strings(examples.items)
    labels = tf.constant(examples.labels, tf.int64) if examples.labels else None

    def load(index: Any) -> Any:
        item = value = item_at(index)
        if not isinstance(spec, TextSpec):
            value = decode_image(tf.io.read_file(item), spec, examples.kinds)
        features = {spec.key: value}
        return features if labels is None else (features, labels[index])

    dataset = indices.map(_without_autograph(load), num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batch_size, drop_remainder=drop_remainder).prefetch(tf.data.AUTOTUNE)
