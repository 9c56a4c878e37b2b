"""The classification head: one class out of several for each example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError, check_known
from estimator_tl.heads.labels import class_numbers
from estimator_tl.heads.layers import ACTIVATIONS, dense, hidden_stack
from estimator_tl.heads.registry import registry
from estimator_tl.heads.spec_of_head import spec_of_head
from estimator_tl.specs import WEIGHT_KEY
from estimator_tl.tf_internals.graphs.placement import on_cpu
from estimator_tl.types import EstimatorSpec, Tensor

_SERVED = ("class_ids", "classes", "all_class_ids", "all_classes", "probabilities", "logits")


_NO_COUNT = "the classifier does not know its number of classes; give n_classes= or labels=."


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Dense layers and softmax (or, for two classes, a logistic output).

    Attributes:
      hidden_units: sizes of dense layers before the logits.
      dropout: rate after each hidden layer, or on the features if there are no hidden layers.
      label_smoothing: share of each label spread over all classes, in the training and evaluation loss.
      activation: the activation of the hidden layers.
      n_classes: number of classes; None until it is known from the data.
      labels: a string for each class, in order; their numbers by default.
    """

    hidden_units: tuple[int, ...] = ()
    dropout: float = 0.0
    label_smoothing: float = 0.0
    activation: str = "relu"
    n_classes: int | None = None
    labels: tuple[str, ...] | None = None

    def with_labels(self, labels: Sequence[str]) -> Classifier:
        """Returns this head for a dataset with these labels."""
        return dataclasses.replace(self, n_classes=len(labels), labels=tuple(labels))

    @property
    def class_count(self) -> int:
        """Number of classes.

        Raises:
          UserError: the number is not known yet.
        """
        if self.n_classes is None:
            raise UserError(_NO_COUNT)
        return self.n_classes

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics that an evaluation may report."""
        with tf.Graph().as_default():
            return ("loss", "regularization_loss", *self._head(None).metrics())

    def check(self, feature_rank: int | None) -> None:
        """Checks that the head fits its backbone.

        Args:
          feature_rank: rank of the features with the batch; None where unknown.

        Raises:
          UserError: the features have another rank than [batch, depth], or the number of classes is not known.
        """
        if self.n_classes is None:
            raise UserError(_NO_COUNT)
        if feature_rank not in (None, 2):
            remedy = "name an output [batch, depth] by features="
            if feature_rank > 2:
                remedy = "use --pooling=avg, max or flatten"
            raise UserError(
                f"the classifier takes features [batch, depth], but the backbone gives rank {feature_rank}; {remedy}."
            )

    def logits(self, features: Tensor, training: bool) -> Any:
        """Returns float32 logits [batch, n_classes], or [batch, 1] for two classes.

        Args:
          features: float32 [batch, depth].
          training: whether dropout is on.
        """
        self.check(features.shape.rank)
        with tf.compat.v1.variable_scope("head"):
            hidden = hidden_stack(features, self.hidden_units, self.activation, self.dropout, training)
            units = 1 if self.class_count == 2 else self.class_count
            return dense(hidden, units, "logits")

    def estimator_spec(
        self,
        features: Mapping[str, Any],
        mode: str,
        logits: Tensor,
        labels: Tensor,
        train_op_fn: Callable[[Any], Any],
        regularization_losses: Sequence[Tensor],
        embedding: Tensor,
        on_tpu: bool = False,
    ) -> EstimatorSpec:
        """Returns the EstimatorSpec of the Estimator API's multi-class or binary head.

        Args:
          features: the input features; an optional ``weight`` holds example weights.
          mode: a ModeKeys value.
          logits: see `logits`.
          labels: [batch] or [batch, 1], see `labels.class_numbers`; None in prediction.
          train_op_fn: makes the train op from the scalar loss.
          regularization_losses: scalars added to the loss.
          embedding: the features below the head, float32 [batch, depth]; predicted under ``features``.
          on_tpu: whether to return a TPUEstimatorSpec, whose predictions have no strings.

        Raises:
          UserError: there are no labels, or they have another form.
        """
        if mode != estimator.ModeKeys.PREDICT:
            labels = class_numbers(labels, self.class_count, self.labels, tf.shape(logits)[0], on_tpu)
        spec = spec_of_head(
            self._head(WEIGHT_KEY if WEIGHT_KEY in features else None),
            features=features,
            mode=mode,
            logits=logits,
            labels=labels,
            train_op_fn=train_op_fn,
            regularization_losses=list(regularization_losses) or None,
            embedding=embedding,
            on_tpu=on_tpu,
        )
        if on_tpu or mode != estimator.ModeKeys.PREDICT:
            return spec
        return self._name_classes(spec, embedding)

    def _head(self, weight_column: str | None) -> Any:
        common = {"weight_column": weight_column, "name": None}
        if self.class_count == 2:
            binary_loss = self._binary_loss() if self.label_smoothing else None
            return estimator.BinaryClassHead(loss_fn=binary_loss, **common)
        loss_fn = self._smoothed_loss if self.label_smoothing else None
        return estimator.MultiClassHead(n_classes=self.class_count, loss_fn=loss_fn, **common)

    def _smoothed_loss(self, labels: Tensor, logits: Tensor) -> Any:
        """Returns the cross-entropy [batch, 1] with labels smoothed as in Szegedy et al. 2016, section 7."""
        one_hot = tf.one_hot(tf.squeeze(labels, -1), self.class_count)
        targets = one_hot * (1.0 - self.label_smoothing) + self.label_smoothing / self.class_count
        return tf.expand_dims(tf.nn.softmax_cross_entropy_with_logits(targets, logits), -1)

    def _binary_loss(self) -> Callable[[Any, Any], Any]:
        def loss(labels: Tensor, logits: Tensor) -> Any:
            targets = tf.cast(labels, tf.float32) * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
            return tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)

        return loss

    def _name_classes(self, spec: Any, embedding: Tensor) -> Any:
        """Replaces class numbers by label strings in the predictions, and adds the features."""
        predictions = dict(spec.predictions)
        batch = tf.shape(predictions["probabilities"])[0]
        predictions["all_class_ids"] = tf.tile(tf.range(self.class_count)[tf.newaxis], [batch, 1])
        with on_cpu():
            names = tf.constant(self.labels or [str(index) for index in range(self.class_count)])
            predictions["classes"] = tf.gather(names, predictions["class_ids"])
            predictions["all_classes"] = tf.tile(names[tf.newaxis], [batch, 1])
        predictions["features"] = embedding
        export = estimator.export
        served = export.PredictOutput({key: predictions[key] for key in _SERVED})
        outputs = {
            tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: served,
            "classify": export.ClassificationOutput(
                scores=predictions["probabilities"], classes=predictions["all_classes"]
            ),
            "features": export.PredictOutput({"features": embedding}),
        }
        return spec._replace(predictions=predictions, export_outputs=outputs)


@registry.register()
def classifier(
    hidden_units: Sequence[int] = (),
    dropout: float = 0.0,
    label_smoothing: float = 0.0,
    activation: str = "relu",
    n_classes: int | None = None,
    labels: Sequence[str] | None = None,
) -> Classifier:
    """Returns a classification head; see `Classifier` for the arguments.

    Raises:
      UserError: an argument is out of range.

    Example:
      >>> head = etl.heads.classifier(hidden_units=[128], dropout=0.2, labels=["cat", "dog", "owl"])
      >>> head.class_count
      3
    """
    if isinstance(hidden_units, int):
        hidden_units = (hidden_units,)
    units = tuple(hidden_units)
    if any(not isinstance(u, int) or u < 1 for u in units):
        raise UserError(f"hidden_units={list(units)} must be whole numbers of at least 1, e.g. [128].")
    for name, value in (("dropout", dropout), ("label_smoothing", label_smoothing)):
        if not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
            raise UserError(f"{name}={value!r} must be at least 0 and below 1.")
    if labels is not None and n_classes is not None and len(labels) != n_classes:
        raise UserError(f"{len(labels)} labels for n_classes={n_classes}; give one of them.")
    count = n_classes if labels is None else len(labels)
    if count is not None and count < 2:
        raise UserError(f"a classifier needs at least 2 classes, not {count}.")
    return Classifier(
        units,
        dropout,
        label_smoothing,
        check_known("activation", activation, ACTIVATIONS),
        count,
        tuple(labels) if labels else None,
    )
