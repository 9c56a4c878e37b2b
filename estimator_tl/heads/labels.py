"""Converts the labels of an input_fn, in any form, to class numbers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.types import Tensor

# The part of a session's error that `naming_bad_labels` shows.
_FAILED = re.compile(r"\[(the labels of this batch [^\]]*)\]")


def class_numbers(labels: Tensor, count: int, names: Sequence[str] | None, batch: Tensor, on_tpu: bool = False) -> Any:
    """Returns int32 or int64 [batch, 1]: the class number of each example.

    Args:
      labels: [batch] or [batch, 1], also of unknown shape: integers of any size; floats with integer values; booleans
        for two classes; or class names as strings.
      count: number of classes.
      names: names of the classes; None for classes without names.
      batch: scalar: the number of examples.
      on_tpu: leave out the checks of values, as a TPU does not stop at them.

    Raises:
      UserError: there are no labels, or they have another form. A value that is not a class makes the session fail.
    """
    labels = _as_tensor(labels, count)
    numbers, checks = _as_integers(labels, count, names)
    if labels.shape.rank == 1:
        numbers = tf.expand_dims(numbers, -1)
    elif labels.shape.rank is None or labels.shape[1] is None:
        numbers = tf.reshape(numbers, [-1, 1])
        one_each = tf.equal(tf.size(numbers), batch)
        checks.append((one_each, "are not one class number for each example"))
    if on_tpu:
        return numbers
    for holds, text in checks:
        numbers = _assert(numbers, holds, text, labels)
    in_range = tf.reduce_all((numbers >= 0) & (numbers < count))
    return _assert(numbers, in_range, _range_text(count, names, labels), labels)


def _assert(numbers: Any, holds: Any, text: str, labels: Tensor) -> Any:
    """Returns the numbers, but makes the session fail where a condition does not hold."""
    with tf.control_dependencies([tf.debugging.Assert(holds, [f"the labels of this batch {text}", labels])]):
        return tf.identity(numbers)


@contextlib.contextmanager
def naming_bad_labels() -> Iterator[None]:
    """A block in which a session's error about labels, many lines long, becomes one line.

    Raises:
      UserError: a batch holds labels that are not classes.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        match = _FAILED.search(str(error))
        if match is None:
            raise
        raise UserError(f"{match[1]}; correct them in the input_fn.") from None


def _as_tensor(labels: Tensor, count: int) -> Any:
    """Returns labels as a dense tensor and checks, if its shape is known, that it is [batch] or [batch, 1]."""
    if labels is None:
        raise UserError("the input_fn gives no labels; let it return (features, labels) for training and evaluation.")
    if isinstance(labels, Mapping):
        raise UserError(f"the labels are a dict ({', '.join(map(str, labels))}), but there is one head; give a tensor.")
    if isinstance(labels, (tf.SparseTensor, tf.RaggedTensor)):
        raise UserError(f"the labels are a {type(labels).__name__}; give a dense tensor [batch] of class numbers.")
    labels = tf.convert_to_tensor(labels)
    rank = labels.shape.rank
    depth = labels.shape[-1] if rank else None
    if rank == 2 and depth == count and depth != 1:
        raise UserError(
            f"the labels have the shape {labels.shape}, as if one-hot; give class numbers, e.g. tf.argmax(labels, -1)."
        )
    if rank not in (None, 1, 2) or (rank == 2 and depth not in (None, 1)):
        raise UserError(f"the labels have the shape {labels.shape}; give one class number for each example: [batch].")
    return labels


def _as_integers(labels: Tensor, count: int, names: Sequence[str] | None) -> tuple[Any, list[tuple[Any, str]]]:
    """Returns labels as integers, and the checks for that: pairs of a condition and the message if it fails."""
    if labels.dtype == tf.string:
        if not names:
            raise UserError(
                "the labels are strings, but the head does not know the class names; give classifier(labels=[...])."
            )
        matches = tf.equal(labels[..., tf.newaxis], tf.constant(names))
        return tf.where(tf.reduce_any(matches, -1), tf.argmax(matches, -1), -1), []
    if labels.dtype.is_floating:
        are_whole = tf.reduce_all(tf.equal(labels, tf.round(labels)))
        return tf.cast(labels, tf.int64), [(are_whole, "hold a number that is not a whole number")]
    if labels.dtype == tf.bool and count != 2:
        raise UserError(f"the labels are booleans, but there are {count} classes; give class numbers.")
    if not (labels.dtype.is_integer or labels.dtype == tf.bool):
        raise UserError(f"the labels are {labels.dtype.name}; give class numbers, e.g. int64.")
    if labels.dtype not in (tf.int32, tf.int64):
        labels = tf.cast(labels, tf.int64)
    return labels, []


def _range_text(count: int, names: Sequence[str] | None, labels: Tensor) -> str:
    if labels.dtype == tf.string and names:
        more = ", ..." if count > 5 else ""
        return f"hold a string that is not a class name (known: {', '.join(names[:5])}{more})"
    return f"hold a class number outside of 0 to {count - 1}"
