"""Makes the EstimatorSpec, or TPUEstimatorSpec, of a head of the Estimator API.

The API's heads make strings in every mode, and XLA compiles no strings. So this module makes what a TPU needs in
another form, for all heads of this project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl.compat import estimator, tf
from estimator_tl.specs import WEIGHT_KEY
from estimator_tl.tf_internals import tpu
from estimator_tl.types import EstimatorSpec, Tensor

#: Predictions of the API's heads that hold numbers.
_NUMBERS = ("logits", "probabilities", "class_ids")


def spec_of_head(
    head: Any,
    *,
    features: Mapping[str, Any],
    mode: str,
    logits: Tensor,
    labels: Tensor,
    train_op_fn: Callable[[Any], Any],
    regularization_losses: Sequence[Tensor] | None,
    embedding: Tensor,
    on_tpu: bool,
    numbers: Sequence[str] = _NUMBERS,
) -> EstimatorSpec:
    """Returns the EstimatorSpec, or TPUEstimatorSpec, of a head of the API.

    Args:
      head: e.g. a `tf.estimator.MultiClassHead`.
      features: the input features; an optional ``weight`` holds example weights.
      mode: a ModeKeys value.
      logits: float32, in the shape that the head takes.
      labels: in the shape that the head takes; None in prediction.
      train_op_fn: makes the train op from the scalar loss.
      regularization_losses: scalars added to the loss, or None.
      embedding: float32 [batch, depth], the features below the head; a TPU predicts them under ``features``.
      on_tpu: whether to return a TPUEstimatorSpec.
      numbers: the predictions of the head that hold no strings.
    """
    if not on_tpu:
        return head.create_estimator_spec(
            features=features,
            mode=mode,
            logits=logits,
            labels=labels,
            train_op_fn=train_op_fn,
            regularization_losses=regularization_losses,
        )
    if mode == estimator.ModeKeys.PREDICT:
        predictions = {**head.predictions(logits, list(numbers)), "features": embedding}
        served = {tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: estimator.export.PredictOutput(predictions)}
        return tpu.spec(mode=mode, predictions=predictions, export_outputs=served)
    loss = head.loss(labels, logits, features, mode, regularization_losses)
    if mode == estimator.ModeKeys.TRAIN:
        with tf.name_scope("training"):  # as in the API's heads, for the names of the optimizer's variables
            return tpu.spec(mode=mode, loss=loss, train_op=train_op_fn(loss))
    return tpu.spec(mode=mode, loss=loss, eval_metrics=_metrics(head, features, logits, labels, regularization_losses))


def _metrics(
    head: Any,
    features: Mapping[str, Any],
    logits: Tensor,
    labels: Tensor,
    regularization_losses: Sequence[Tensor] | None,
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Returns the metrics of a head for a TPU: a function, and its tensors by name, [batch, ...] or [1]."""
    tensors = {"labels": labels, "logits": logits}
    if WEIGHT_KEY in features:
        tensors[WEIGHT_KEY] = features[WEIGHT_KEY]
    if regularization_losses:
        tensors["regularization"] = tf.reshape(tf.add_n(regularization_losses), [1])

    def measure(labels: Tensor, logits: Tensor, regularization: Any = None, **columns: Any) -> Any:
        losses = None if regularization is None else [tf.reduce_mean(regularization)]
        metrics = head.update_metrics(head.metrics(losses), columns, logits, labels, regularization_losses=losses)
        return {name: (metric.result(), tf.group(*metric.updates)) for name, metric in metrics.items()}

    return measure, tensors
