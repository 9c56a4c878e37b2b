"""A run with phases on a cluster described by TF_CONFIG: BACKBONE TUNING MODEL_DIR STEPS."""

import sys

import numpy as np

import estimator_tl as etl
from estimator_tl.compat import tf


def input_fn():
    images = np.random.RandomState(0).rand(8, 8, 8, 3).astype(np.float32)
    return tf.data.Dataset.from_tensors((images, np.arange(8) % 3)).repeat()


def main(handle, tuning, model_dir, steps):
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.INFO)
    model_fn = etl.make_model_fn(
        etl.backbone(handle), etl.heads.classifier(n_classes=3), etl.tuning.registry.make(tuning)
    )
    config = etl.estimator.RunConfig(
        model_dir, save_checkpoints_steps=1, keep_checkpoint_max=0, experimental_max_worker_delay_secs=0
    )
    etl.estimator.train_and_evaluate(
        etl.estimator.Estimator(model_fn, config=config, params={}),
        etl.estimator.TrainSpec(input_fn, max_steps=int(steps)),
        etl.estimator.EvalSpec(input_fn, steps=1, start_delay_secs=0, throttle_secs=1),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
