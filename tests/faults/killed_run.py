"""A run of the launcher that kills its own process: MODEL_DIR DATA BACKBONE OPTIMIZER [KIND STEP]."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

TUNING = "phases(phase(frozen, 5), phase(last_layers(3), 10), phase(full, 15), phase(last_layers(3), multiplier=0.5))"
STEPS = 20


def main(model_dir: str, data: str, backbone: str, optimizer: str, kind: str = "", step: str = "0") -> None:
    from estimator_tl.compat import quiet

    quiet.import_tensorflow_quietly()
    from estimator_tl.compat import tf
    from estimator_tl.config import DataSpec, EvaluationSpec, ModelSpec, RunSpec, TrainingSpec
    from estimator_tl.launch.training import train

    class Killer(tf.compat.v1.train.SessionRunHook):
        """Ends the process before or after a step, or while the checkpoint of that step is written."""

        def begin(self):
            self.step = tf.compat.v1.train.get_global_step()
            if kind == "writing":
                threading.Thread(target=self.watch, daemon=True).start()

        def watch(self):
            while not any(f"ckpt-{step}_temp" in p.name or ".tempstate" in p.name for p in Path(model_dir).rglob("*")):
                time.sleep(0)
            os.kill(os.getpid(), signal.SIGKILL)

        def before_run(self, run_context):
            return tf.compat.v1.train.SessionRunArgs(self.step)

        def after_run(self, run_context, run_values):
            if kind == "after" and run_values.results >= int(step):
                os.kill(os.getpid(), signal.SIGKILL)

    model = ModelSpec(backbone, tuning=TUNING, optimizer=optimizer, head="classifier(hidden_units=[8], dropout=0.3)")
    training = TrainingSpec(
        train_steps=STEPS, batch_size=7, learning_rate="cosine(0.01)", deterministic=True, save_checkpoints_steps=3
    )
    once = EvaluationSpec(eval_throttle_secs=3600)
    train(RunSpec(model, DataSpec(data), training, once), model_dir, hooks=[Killer()])


if __name__ == "__main__":
    main(*sys.argv[1:])
