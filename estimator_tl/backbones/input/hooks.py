"""Session hooks that check the batches of an input_fn."""

from __future__ import annotations

from typing import Any

from absl import logging

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.specs import ImageSpec
from estimator_tl.types import RunContext, RunValues, Session, Tensor

# Graph collection of the images that each replica takes.
_IMAGES = "estimator_tl/images"
# Runs that have had the warning; each phase and each evaluation makes another graph and hook.
_warned_runs: set[tuple[str, str]] = set()


class ImageRangeHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Warns once per run if the first batch of images is far outside of the range that the backbone takes.

    It fetches the minimum and the maximum with the first step only, but their ops stay in the graph.
    """

    def __init__(self, handle: str, spec: ImageSpec, images: Tensor, model_dir: str | None):
        """Prepares the hook in the graph of a replica.

        Args:
          handle: the backbone's handle, for the message.
          spec: the backbone's input contract.
          images: [batch, height, width, channels].
          model_dir: of the run.
        """
        self._handle, self._spec, self._run = handle, spec, (model_dir or "", handle)
        self._values: dict[str, Any] | None = None
        tf.compat.v1.add_to_collection(_IMAGES, tf.convert_to_tensor(images))

    def begin(self) -> None:
        self._values = None
        if self._run in _warned_runs:
            return
        # Adding these ops after the model's ops leaves its random seeds, which depend on op counts, unchanged.
        images = tf.compat.v1.get_collection(_IMAGES)
        pixels = [self._spec.preprocess(tf.fill([1, 1, self._spec.channels], value)) for value in (0.0, 255.0)]
        self._values = {
            "low": tf.reduce_min(pixels),
            "high": tf.reduce_max(pixels),
            "min": [_on_its_device(tf.reduce_min, batch) for batch in images],
            "max": [_on_its_device(tf.reduce_max, batch) for batch in images],
        }

    def before_run(self, run_context: RunContext) -> Any:
        return tf.compat.v1.train.SessionRunArgs(self._values) if self._values else None

    def after_run(self, run_context: RunContext, run_values: RunValues) -> None:
        if not self._values:
            return
        self._values = None
        _warned_runs.add(self._run)
        values = run_values.results
        text = out_of_range(values["low"], values["high"], min(values["min"]), max(values["max"]))
        if text:
            logging.warning(
                "the first batch of images has values from %g to %g, %s the range of %s, %s (%g to %g); scale them in "
                "the input_fn, e.g. pixels of 0 to 255 by image_spec.preprocess of this backbone.",
                min(values["min"]),
                max(values["max"]),
                text,
                self._handle,
                self._spec.range_text,
                values["low"],
                values["high"],
            )


def out_of_range(low: float, high: float, smallest: float, largest: float) -> str | None:
    """Returns in words how a batch misses a range; None where the batch may be in the range.

    Args:
      low: lower end of the range.
      high: upper end of the range.
      smallest: smallest value of the batch.
      largest: largest value of the batch.
    """
    width = high - low
    if smallest < low - width / 2 or largest > high + width / 2:
        return "far outside of"
    # Images in [0, 1] or [-1, 1] look black to a backbone that takes 0 to 255. A batch of one value shows no range.
    if width > 100 and 0 < largest - smallest <= 2.5:
        return "a tiny part of"
    return None


class AnyBatchHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Raises an error at the end of an evaluation without a batch, whose loss would be 0."""

    def __init__(self) -> None:
        self._has_batch = False

    def after_run(self, run_context: RunContext, run_values: RunValues) -> None:
        self._has_batch = True

    def end(self, session: Session) -> None:
        check_any_batch(self._has_batch)


def check_any_batch(has_batch: bool) -> None:
    """Checks that an evaluation saw a batch.

    Raises:
      UserError: the evaluation saw no batch.
    """
    if not has_batch:
        raise UserError(
            "the evaluation's input_fn gives no batch, so there is no loss to report; look at its files and filters, "
            "or leave the evaluation out."
        )


def _on_its_device(reduce: Any, batch: Tensor) -> Any:
    with tf.device(batch.device):
        return reduce(tf.cast(batch, tf.float32))
