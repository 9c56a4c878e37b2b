"""The input position of runs whose input_fn is a user's own."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat import tf
from estimator_tl.specs import INPUT_POSITION
from estimator_tl.tf_internals.files.checkpoints import load_input_hook


def checkpoint_hook(estimator: Any, external_state_policy: str | None = None) -> Any:
    """Returns a hook that saves the position of any tf.data input_fn, in separate checkpoints.

    It is TensorFlow 2.15's `tf.data.experimental.CheckpointInputPipelineHook`, on every TensorFlow. By default it
    refuses iterators that depend on state outside of the pipeline. The input_fn builders of this package do not need
    it: their order follows from seed and step.

    Args:
      estimator: the Estimator whose `train` takes the hook; make one hook for each Estimator.
      external_state_policy: ``fail`` (default), ``warn`` or ``ignore``: what to do with state outside of the pipeline.
    """

    class SavesPosition(load_input_hook()):  # type: ignore[misc]
        """Adds to the graph collection `INPUT_POSITION`, so that `PlanHook` knows that the position is saved."""

        def begin(self) -> None:
            super().begin()
            tf.compat.v1.add_to_collection(INPUT_POSITION, "checkpoint")

    return SavesPosition(estimator, external_state_policy)
