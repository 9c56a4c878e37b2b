"""A program whose data end long before its last step, on a cluster: MODEL_DIR."""

import sys

import estimator_tl as etl
from estimator_tl.compat import tf
from tests import linear


def main(model_dir):
    tf.compat.v1.disable_eager_execution()
    config = etl.run_config(model_dir, save_checkpoints_steps=5)
    return etl.train_and_evaluate(
        etl.estimator.Estimator(linear.model_fn, config=config),
        etl.estimator.TrainSpec(lambda: linear.input_fn().take(10), max_steps=100),
        etl.estimator.EvalSpec(linear.eval_input_fn, name="holdout"),
        metric="loss",
        cluster_wait_secs=60,
    )


if __name__ == "__main__":
    outcome = main(*sys.argv[1:])
    print(f"OUTCOME {outcome.global_step} {outcome.stop} {outcome.exit_code}", flush=True)
    sys.exit(outcome.exit_code)
