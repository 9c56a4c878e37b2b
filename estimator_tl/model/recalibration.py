"""Batch-norm statistics estimated anew on other data, with the weights as they are.

The estimate is that of Wu and Johnson 2021 ("Rethinking 'Batch' in BatchNorm",
section 3): means and variances of many batches joined to those of all of them,
rather than a moving average. It works for every source that can be called in
training mode, because it looks at what one call does to the moving averages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from estimator_tl.backbones.base import Backbone
from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.structure import CallMode, SourceVariable
from estimator_tl.tf_internals.files.checkpoints import assign

MOST_BATCHES = 100


def recalibrated(
    backbone: Backbone,
    batches: Callable[[], Any],
    values: Mapping[str, Any] | None = None,
    most: int = MOST_BATCHES,
) -> dict[str, Any]:
    """Estimates the batch-norm statistics of a source on data.

    Dropout of sources with one training switch is on meanwhile, as it was when their own statistics were made.

    Args:
      backbone: the source.
      batches: called in the graph; returns a dataset, or tensors, of pictures as `Backbone.build` takes them.
      values: of the source's variables; the pretrained ones by default.
      most: how many batches to look at, at most.

    Returns:
      The new values of the moving averages, float32 by variable name.

    Raises:
      UserError: the source keeps no moving averages, or the data is empty.
    """
    statistics = [v for v in backbone.structure.variables if not v.trainable and v.dtype == "float32"]
    norms = frozenset(v.batch_norm for v in backbone.structure.variables if v.batch_norm)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        following = _following(batches())
        images = tf.compat.v1.placeholder(following.dtype, following.shape)
        built = backbone.build(images, CallMode(norms, dropout=False, training=True))
        moving = [built.variables[v.name] for v in statistics]
        session.run([tf.compat.v1.global_variables_initializer(), tf.compat.v1.tables_initializer()])
        session.run(tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS))
        given = values or (built.initial_values() if built.initial_values else {})
        assign(
            session, built.variables, {v.name: given[v.name] for v in backbone.structure.variables if v.name in given}
        )

        def after_call(batch: Any, before: float) -> list[Any]:
            start = {v.name: np.full(v.shape, before, np.float32) for v in statistics}
            assign(session, built.variables, start)
            session.run([built.features, *built.updates], {images: batch})
            read: list[Any] = session.run(moving)
            return [value.astype(np.float64) for value in read]

        return _joined(backbone, statistics, _batches(session, following, most), after_call)


def _following(batches: Any) -> Any:
    if not hasattr(batches, "element_spec"):
        return batches
    iterator = tf.compat.v1.data.make_initializable_iterator(batches)
    tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
    return iterator.get_next()


def _batches(session: Any, following: Any, most: int) -> Iterator[Any]:
    for _ in range(most):
        try:
            yield session.run(following)
        except tf.errors.OutOfRangeError:
            return


def _joined(
    backbone: Backbone,
    statistics: list[SourceVariable],
    batches: Iterator[Any],
    after_call: Callable[[Any, float], list[Any]],
) -> dict[str, Any]:
    """Joins the statistics of batches, each weighed by its size."""
    total = 0
    for batch in batches:
        found = after_call(batch, 0.0)  # (1 - momentum) times the batch's own statistics
        if not total:
            momentum = [_momentum(zero, one) for zero, one in zip(found, after_call(batch, 1.0))]
            sums = [np.zeros_like(value) for value in found]
            squares = [np.zeros_like(value) for value in found]
        own = [value / (1 - m) if m < 1 else value for value, m in zip(found, momentum)]
        sums = [s + value * len(batch) for s, value in zip(sums, own)]
        squares = [s + value**2 * len(batch) for s, value in zip(squares, own)]
        total += len(batch)
    if not total:
        raise UserError("the data to recalibrate batch norm on is empty; give an input_fn that yields batches.")
    if all(m == 1 for m in momentum):
        raise UserError(
            f"calling {backbone.handle} in training mode moves no batch-norm statistics, so there is nothing to "
            "recalibrate; use batch norm inference."
        )
    index = {variable.name: i for i, variable in enumerate(statistics)}
    result = {}
    for i, variable in enumerate(statistics):
        if momentum[i] == 1:
            continue
        value = sums[i] / total
        mean = index.get(_mean_of(variable.name))
        if mean is not None:  # the variance of all batches is that within them and that of their means
            value = value + squares[mean] / total - (sums[mean] / total) ** 2
        result[variable.name] = value.astype(np.float32)
    return result


def _momentum(from_zero: Any, from_one: Any) -> float:
    """Returns m of new = m * old + (1 - m) * batch; 1 where a call leaves the variable as it is."""
    factors = from_one - from_zero
    low, high = float(factors.min(initial=1.0)), float(factors.max(initial=0.0))
    if low == 1.0 or high - low > 1e-3 * max(abs(high), 1.0) or not -1e-6 <= low < 1.0:
        return 1.0
    return max(float(np.median(factors)), 0.0)


def _mean_of(name: str) -> str:
    """Returns the name that the mean beside a variance has; empty for other variables."""
    group, _, last = name.rpartition("/")
    for variance, mean in (("variance", "mean"), ("var", "mean")):
        if variance in last:
            return f"{group}/{last.replace(variance, mean)}" if group else last.replace(variance, mean)
    return ""
