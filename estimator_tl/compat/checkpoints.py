"""Hooks that write checkpoints."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat.versions import has_native_estimator, load_tensorflow


def aligned_saver_hook(model_dir: str, every: int) -> Any:
    """Returns a CheckpointSaverHook that saves at the multiples of `every`, beside the first step and the last.

    TensorFlow's own counts from where a session began, so that a run which stops
    and goes on, or is trained phase by phase, would be saved at other steps.
    """
    tf = load_tensorflow()
    hook = tf.compat.v1.train.CheckpointSaverHook(model_dir, save_steps=every)

    class AlignedTimer(tf.compat.v1.train.SecondOrStepTimer):  # type: ignore[misc,name-defined]
        """Triggers once a multiple of `every` was reached since it last did."""

        def should_trigger_for_step(self, step: int) -> bool:
            last = self.last_triggered_step()
            return last is None or step // every > last // every

    hook._timer = AlignedTimer(every_steps=every)
    return hook


def load_input_hook() -> Any:
    """Returns the class `CheckpointInputPipelineHook`, TensorFlow's own where it has it."""
    if has_native_estimator():
        return load_tensorflow().data.experimental.CheckpointInputPipelineHook
    from estimator_tl.compat.standins.checkpoint_input_pipeline_hook import CheckpointInputPipelineHook

    return CheckpointInputPipelineHook
