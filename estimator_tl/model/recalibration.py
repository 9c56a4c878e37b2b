"""Estimates batch-norm statistics on other data, with unchanged weights.

The method is from Wu and Johnson 2021 ("Rethinking 'Batch' in BatchNorm",
section 3): it joins the means and variances of many batches to the mean and
variance of all their examples, instead of a moving average. It works for every
backbone that can be called in training mode, because it only measures how one
call changes the moving averages.
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
from estimator_tl.types import Session, Tensor

MOST_BATCHES = 100


def recalibrate(
    backbone: Backbone,
    batches: Callable[[], Any],
    values: Mapping[str, Any] | None = None,
    most: int = MOST_BATCHES,
) -> dict[str, Any]:
    """Estimates the batch-norm statistics of a backbone on data.

    If the backbone has one training switch, its dropout is on during the estimate, as it was in its own training.

    Args:
      backbone: the backbone.
      batches: called in the graph; returns a dataset, or tensors, of images in the form that `Backbone.build` takes.
      values: values of the backbone's variables; by default the pretrained ones.
      most: the maximum number of batches to use.

    Returns:
      The new values of the moving averages, float32 by variable name.

    Raises:
      UserError: the backbone has no moving averages, or the data is empty.
    """
    statistics = [v for v in backbone.structure.variables if not v.trainable and v.dtype == "float32"]
    norms = frozenset(v.batch_norm for v in backbone.structure.variables if v.batch_norm)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        next_batch = _next_batch(batches())
        images = tf.compat.v1.placeholder(next_batch.dtype, next_batch.shape)
        network = backbone.build(images, CallMode(norms, dropout=False, training=True))
        moving_averages = [network.variables[v.name] for v in statistics]
        session.run([tf.compat.v1.global_variables_initializer(), tf.compat.v1.tables_initializer()])
        session.run(tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS))
        initial = values or {}
        if not initial and network.initial_values:
            initial = network.initial_values()
        names = [v.name for v in backbone.structure.variables if v.name in initial]
        assign(session, network.variables, {name: initial[name] for name in names})

        def after_call(batch: Tensor, before: float) -> list[Any]:
            start = {v.name: np.full(v.shape, before, np.float32) for v in statistics}
            assign(session, network.variables, start)
            session.run([network.features, *network.updates], {images: batch})
            averages: list[Any] = session.run(moving_averages)
            return [value.astype(np.float64) for value in averages]

        return _join_batches(backbone, statistics, _batches(session, next_batch, most), after_call)


def _next_batch(batches: Any) -> Any:
    if not hasattr(batches, "element_spec"):
        return batches
    iterator = tf.compat.v1.data.make_initializable_iterator(batches)
    tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
    return iterator.get_next()


def _batches(session: Session, next_batch: Any, most: int) -> Iterator[Any]:
    for _ in range(most):
        try:
            yield session.run(next_batch)
        except tf.errors.OutOfRangeError:
            return


def _join_batches(
    backbone: Backbone,
    statistics: list[SourceVariable],
    batches: Iterator[Any],
    after_call: Callable[[Any, float], list[Any]],
) -> dict[str, Any]:
    """Joins the statistics of several batches, each weighted by its number of examples."""
    total = 0
    for batch in batches:
        averages = after_call(batch, 0.0)  # (1 - momentum) times the batch's statistics
        if not total:
            momentum = [_momentum(zero, one) for zero, one in zip(averages, after_call(batch, 1.0))]
            sums = [np.zeros_like(value) for value in averages]
            squares = [np.zeros_like(value) for value in averages]
        batch_values = [value / (1 - m) if m < 1 else value for value, m in zip(averages, momentum)]
        sums = [s + value * len(batch) for s, value in zip(sums, batch_values)]
        squares = [s + value**2 * len(batch) for s, value in zip(squares, batch_values)]
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
        if mean is not None:  # the total variance is the mean variance of batches plus the variance of their means
            value = value + squares[mean] / total - (sums[mean] / total) ** 2
        result[variable.name] = value.astype(np.float32)
    return result


def _momentum(from_zero: Any, from_one: Any) -> float:
    """Returns m in new = m * old + (1 - m) * batch; 1 if a call does not change the variable."""
    factors = from_one - from_zero
    low, high = float(factors.min(initial=1.0)), float(factors.max(initial=0.0))
    if low == 1.0 or high - low > 1e-3 * max(abs(high), 1.0) or not -1e-6 <= low < 1.0:
        return 1.0
    return max(float(np.median(factors)), 0.0)


def _mean_of(name: str) -> str:
    """Returns the name of the mean that belongs to a variance; empty for other variables."""
    group, slash, last = name.rpartition("/")
    for variance in ("variance", "var"):
        if variance in last:
            return f"{group}{slash}{last.replace(variance, 'mean')}"
    return ""
