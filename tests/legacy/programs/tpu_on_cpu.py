"""TPUEstimator with use_tpu=False, and, on request, use_tpu=True where there is no TPU."""

import tensorflow.compat.v1 as tf
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model_dir", None, "Where checkpoints go.")
flags.DEFINE_bool("use_tpu", False, "Whether to run on a TPU.")
flags.DEFINE_integer("train_batch_size", 8, "Global batch size.")


def input_fn(params):
    x = tf.random.stateless_normal([32, 4], seed=[1, 2])
    dataset = tf.data.Dataset.from_tensor_slices((x, tf.reduce_sum(x, 1, keepdims=True)))
    return dataset.repeat().batch(params["batch_size"], drop_remainder=True)


def metric_fn(labels, predictions):
    return {"error": tf.metrics.mean_squared_error(labels, predictions)}


def model_fn(features, labels, mode, params):
    predictions = tf.layers.dense(features, 1, name="out")
    loss = tf.losses.mean_squared_error(labels, predictions)
    optimizer = tf.train.AdamOptimizer(params["learning_rate"])
    if FLAGS.use_tpu:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)
    train_op = optimizer.minimize(loss, tf.train.get_global_step())
    return tf.estimator.tpu.TPUEstimatorSpec(
        mode=mode, loss=loss, train_op=train_op, eval_metrics=(metric_fn, [labels, predictions])
    )


def main(_):
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver("local") if FLAGS.use_tpu else None
    config = tf.estimator.tpu.RunConfig(
        cluster=resolver,
        model_dir=FLAGS.model_dir,
        tpu_config=tf.estimator.tpu.TPUConfig(iterations_per_loop=10, num_shards=8 if FLAGS.use_tpu else None),
    )
    estimator = tf.estimator.tpu.TPUEstimator(
        model_fn=model_fn,
        config=config,
        use_tpu=FLAGS.use_tpu,
        train_batch_size=FLAGS.train_batch_size,
        eval_batch_size=8,
        params={"learning_rate": 0.1},
    )
    estimator.train(input_fn, max_steps=60)
    result = estimator.evaluate(input_fn, steps=4)
    print("step", result["global_step"], "good" if result["error"] < 0.1 else "bad", sorted(result))


if __name__ == "__main__":
    app.run(main)
