"""Run as `python -m trainer.task`, the layout of cloud training services."""

import argparse
import os

import tensorflow as tf

from . import model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--job-dir", required=True)
    parser.add_argument("--max-steps", type=int, default=30)
    args = parser.parse_args()
    config = tf.estimator.RunConfig(model_dir=args.job_dir, save_checkpoints_steps=10, tf_random_seed=1)
    estimator = tf.estimator.Estimator(model.model_fn, config=config, params={"learning_rate": 0.1})
    estimator = tf.estimator.add_metrics(estimator, model.add_error)
    best = tf.estimator.BestExporter("best", model.serving_input_receiver_fn, exports_to_keep=1)
    final = tf.estimator.FinalExporter("final", model.serving_input_receiver_fn)
    metrics, _ = tf.estimator.train_and_evaluate(
        estimator,
        tf.estimator.TrainSpec(lambda: model.input_fn().repeat(), max_steps=args.max_steps),
        tf.estimator.EvalSpec(model.input_fn, steps=None, throttle_secs=0, exporters=[best, final]),
    )
    print("step", metrics["global_step"], sorted(metrics))
    print("loss below a tenth", metrics["average_loss"] < 0.1)
    print("exports", *(len(os.listdir(os.path.join(args.job_dir, "export", name))) for name in ("best", "final")))


if __name__ == "__main__":
    main()
