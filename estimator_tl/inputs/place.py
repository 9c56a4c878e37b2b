"""The place in the input of runs whose input_fn is somebody else's."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat import tf
from estimator_tl.specs import INPUT_PLACE
from estimator_tl.tf_internals.files.checkpoints import load_input_hook


def checkpoint_hook(estimator: Any, external_state_policy: str | None = None) -> Any:
    """Returns a hook that keeps the place of any tf.data input_fn in checkpoints of its own.

    It is TensorFlow 2.15's `tf.data.experimental.CheckpointInputPipelineHook`, on every TensorFlow. It refuses
    iterators whose state is not theirs alone, unless told otherwise. The input_fn builders of this package do not
    need it: their order follows from seed and step.

    Args:
      estimator: whose `train` is given the hook, and no other's.
      external_state_policy: ``fail`` (default), ``warn`` or ``ignore``.
    """

    class KeepsPlace(load_input_hook()):  # type: ignore[misc]
        """Says in the graph that the place is kept, for the plan's hook to see."""

        def begin(self) -> None:
            super().begin()
            tf.compat.v1.add_to_collection(INPUT_PLACE, "checkpoint")

    return KeepsPlace(estimator, external_state_policy)
