"""Linear regression on a cluster described by TF_CONFIG, with or without a strategy; the chief exports."""

import json
import os
import time

import tensorflow as tf
from absl import app, flags

flags.DEFINE_string("model_dir", None, "Where checkpoints go.", required=True)
flags.DEFINE_enum("strategy", "none", ["none", "multi_worker_mirrored", "parameter_server"], "How to distribute.")
flags.DEFINE_integer("train_steps", 200, "Global step to train to.")
flags.DEFINE_string("half_until", None, "Stay at half of the steps until this file exists.")
FLAGS = flags.FLAGS

WEIGHTS = [[1.0], [-2.0], [0.5]]


def input_fn():
    x = tf.random.stateless_normal([64, 3], seed=[1, 2])
    dataset = tf.data.Dataset.from_tensor_slices(({"x": x}, tf.matmul(x, WEIGHTS)))
    return dataset.shuffle(64, seed=3).repeat().batch(16)


def eval_input_fn():
    x = tf.random.stateless_normal([64, 3], seed=[1, 2])
    return tf.data.Dataset.from_tensor_slices(({"x": x}, tf.matmul(x, WEIGHTS))).batch(16)


def serving_input_receiver_fn():
    features = {"x": tf.compat.v1.placeholder(tf.float32, [None, 3])}
    return tf.estimator.export.ServingInputReceiver(features, features)


def model_fn(features, labels, mode):
    kernel = tf.compat.v1.get_variable("kernel", [3, 1], initializer=tf.compat.v1.zeros_initializer())
    predictions = tf.matmul(features["x"], kernel)
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.EstimatorSpec(mode, predictions={"y": predictions})
    loss = tf.compat.v1.losses.mean_squared_error(labels, predictions)
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.05)
    train_op = optimizer.minimize(loss, tf.compat.v1.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


class Progress(tf.compat.v1.train.SessionRunHook):
    """Says when this task trains its first step, and stays at half of the way until told to go on."""

    def begin(self):
        self.step = tf.compat.v1.train.get_global_step()
        self.started = False

    def before_run(self, run_context):
        return tf.compat.v1.train.SessionRunArgs(self.step)

    def after_run(self, run_context, run_values):
        if not self.started:
            self.started = True
            print("TRAINING from global step", run_values.results, flush=True)
        while FLAGS.half_until and run_values.results >= FLAGS.train_steps // 2:
            if os.path.exists(FLAGS.half_until):
                break
            time.sleep(0.1)


def strategy():
    if FLAGS.strategy == "multi_worker_mirrored":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if FLAGS.strategy == "parameter_server":
        return tf.compat.v1.distribute.experimental.ParameterServerStrategy()
    return None


def is_chief():
    config = json.loads(os.environ["TF_CONFIG"])
    task = config["task"]
    return task["type"] == "chief" or ("chief" not in config["cluster"] and task == {"type": "worker", "index": 0})


def main(_):
    if FLAGS.strategy == "multi_worker_mirrored":
        tf.compat.v1.disable_eager_execution()  # this strategy cannot be copied for the evaluator otherwise
    config = tf.estimator.RunConfig(
        model_dir=FLAGS.model_dir,
        train_distribute=strategy(),
        save_checkpoints_steps=50,
        keep_checkpoint_max=50,  # a slow evaluator must still find the one that it has chosen
        experimental_max_worker_delay_secs=0,
    )
    estimator = tf.estimator.Estimator(model_fn, config=config)
    train_spec = tf.estimator.TrainSpec(input_fn, max_steps=FLAGS.train_steps, hooks=[Progress()])
    eval_spec = tf.estimator.EvalSpec(eval_input_fn, steps=None, start_delay_secs=0, throttle_secs=1)
    tf.estimator.train_and_evaluate(estimator, train_spec, eval_spec)
    if is_chief():
        exported = estimator.export_saved_model(os.path.join(FLAGS.model_dir, "export"), serving_input_receiver_fn)
        print("EXPORTED", exported, flush=True)
    print("DONE", flush=True)


if __name__ == "__main__":
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.INFO)
    app.run(main)
