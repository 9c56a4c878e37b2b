"""The tf.data pipelines: numbers first, shuffled before anything is read; then decode, batch, prefetch."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.inputs.images.decoding import KINDS
from estimator_tl.inputs.images.feature import decode_image
from estimator_tl.specs import INPUT_PLACE, InputSpec, TextSpec
from estimator_tl.tf_internals.files.checkpoint_state import newest_checkpoint


@dataclasses.dataclass(frozen=True)
class Examples:
    """Files or texts, and their class numbers.

    Attributes:
      items: one file or one text for each example.
      labels: the class number of each; empty where they are not known.
      kinds: of images that there may be among the files; of few, a graph begins sooner.
    """

    items: tuple[str, ...]
    labels: tuple[int, ...] = ()
    kinds: tuple[str, ...] = tuple(KINDS)

    def __len__(self) -> int:
        return len(self.items)


def latest_step(model_dir: str | None) -> int:
    """Returns the global step of a run's newest whole checkpoint; 0 where there is none.

    Raises:
      UserError: checkpoints are listed, and none is whole.
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

    The order is stateless: which example stands at which place follows from the
    seed and the place alone, each epoch being a permutation of its own, so that
    a pipeline can begin at any batch. Batches run across the ends of epochs.

    Args:
      examples: at least one.
      spec: the form that the source takes.
      batch_size: examples in a batch.
      seed: of the order.
      epochs: how often each example is given; None for ever.
      first_batch: where to begin, counted over all pipelines.
      shard: how many pipelines share the batches, and the number of this one.
    """
    count = len(examples)
    end = count * epochs if epochs is not None else tf.int64.max
    places = tf.data.Dataset.range(first_batch * batch_size, end)
    if shard[0] > 1:
        places = places.batch(batch_size).shard(*shard).unbatch()
    tf.compat.v1.add_to_collection(INPUT_PLACE, first_batch)

    def shuffled(place: Any) -> Any:
        epoch, offset = place // count, place % count
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        return tf.random.experimental.index_shuffle(offset, key, tf.constant(count - 1, tf.int64))

    endless = epochs is None  # its last batch, which would be smaller, never comes: the shape is static
    return _decoded(places.map(_as_it_is(shuffled)), examples, spec, batch_size, endless)


def evaluation_dataset(examples: Examples, spec: InputSpec, batch_size: int) -> Any:
    """Returns batches of all examples, once and in order; (features, labels), or features where labels are unknown."""
    return _decoded(tf.data.Dataset.range(len(examples)), examples, spec, batch_size)


def _as_it_is(function: Any) -> Any:
    """Keeps autograph from converting a function of operations, for longer than the rest of a pipeline's making."""
    return tf.autograph.experimental.do_not_convert(function)


def _strings(items: Sequence[str]) -> Callable[[Any], Any]:
    """Returns a function from an int64 index to a scalar string.

    The strings are one constant, as TensorFlow takes minutes to begin with a graph of a hundred thousand of them.
    """
    # Names of files need not be UTF-8; `os` gives them with surrogates.
    encoded = [item.encode("utf-8", "surrogateescape") for item in items]
    joined = tf.constant(b"".join(encoded))
    bounds = tf.constant(list(itertools.accumulate(map(len, encoded), initial=0)), tf.int64)

    def item_at(index: Any) -> Any:
        return tf.strings.substr(joined, bounds[index], bounds[index + 1] - bounds[index])

    return item_at


def _decoded(indices: Any, examples: Examples, spec: InputSpec, batch_size: int, even: bool = False) -> Any:
    item_at = _strings(examples.items)
    labels = tf.constant(examples.labels, tf.int64) if examples.labels else None

    def load(index: Any) -> Any:
        item = value = item_at(index)
        if not isinstance(spec, TextSpec):
            value = decode_image(tf.io.read_file(item), spec, examples.kinds)
        features = {spec.key: value}
        return features if labels is None else (features, labels[index])

    loaded = indices.map(_as_it_is(load), num_parallel_calls=tf.data.AUTOTUNE)
    return loaded.batch(batch_size, drop_remainder=even).prefetch(tf.data.AUTOTUNE)
