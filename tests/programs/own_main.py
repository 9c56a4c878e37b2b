"""A program with a main of its own, as users have it: BACKBONE TUNING MODEL_DIR STEPS [DISTRIBUTION]."""

import sys

import numpy as np

import estimator_tl as etl
from estimator_tl.compat import tf
from estimator_tl.errors import LostPeersError


def input_fn(training, input_context=None):
    images = np.random.RandomState(0).rand(8, 8, 8, 3).astype(np.float32)
    data = tf.data.Dataset.from_tensors((images, np.arange(8) % 3))
    return data.repeat() if training else data


def main(handle, tuning, model_dir, steps, distribution="auto"):
    tf.compat.v1.disable_eager_execution()
    config = etl.run_config(model_dir, distribution=distribution, save_checkpoints_steps=5, keep_checkpoint_max=0)
    model_fn = etl.make_model_fn(
        etl.backbone(handle), etl.heads.classifier(n_classes=3), etl.tuning.registry.make(tuning)
    )
    estimator = etl.estimator.Estimator(model_fn, config=config, params={})
    return etl.train_and_evaluate(
        estimator,
        etl.estimator.TrainSpec(lambda: input_fn(True), max_steps=int(steps)),
        etl.estimator.EvalSpec(lambda: input_fn(False), steps=None),
        cluster_wait_secs=60,
    )


if __name__ == "__main__":
    try:
        outcome = main(*sys.argv[1:])
    except LostPeersError as error:
        print(error)
        sys.exit(138)
    print(f"OUTCOME step {outcome.global_step} accuracy {outcome.metrics.get('accuracy')}", flush=True)
    sys.exit(outcome.exit_code)
