"""A custom model_fn with tf.compat.v1.layers, batch norm in UPDATE_OPS, and tf.compat.v1.app."""

import tensorflow.compat.v1 as tf

flags = tf.app.flags
flags.DEFINE_string("model_dir", "", "Where checkpoints go.")
flags.DEFINE_integer("steps", 40, "Training steps.")
FLAGS = flags.FLAGS


def input_fn():
    images = tf.random.stateless_uniform([32, 8, 8, 1], seed=[3, 4])
    labels = tf.cast(tf.reduce_mean(images, [1, 2, 3]) > 0.5, tf.int32)
    return tf.data.Dataset.from_tensor_slices((images, labels)).repeat().batch(16)


def model_fn(features, labels, mode, params):
    training = mode == tf.estimator.ModeKeys.TRAIN
    net = tf.layers.conv2d(features, 4, 3, activation=tf.nn.relu, name="conv")
    net = tf.layers.batch_normalization(net, training=training, momentum=0.9, name="bn")
    net = tf.layers.dropout(tf.layers.flatten(net), params["rate"], training=training)
    logits = tf.layers.dense(net, 2, name="logits")
    predictions = {"classes": tf.argmax(logits, 1)}
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.EstimatorSpec(mode, predictions=predictions)
    loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
    metrics = {"accuracy": tf.metrics.accuracy(labels, predictions["classes"])}
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_op = tf.train.MomentumOptimizer(0.05, 0.9).minimize(loss, tf.train.get_or_create_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, eval_metric_ops=metrics)


def main(argv):
    del argv
    estimator = tf.estimator.Estimator(model_fn, FLAGS.model_dir, params={"rate": 0.1})
    estimator.train(input_fn, steps=FLAGS.steps)
    result = estimator.evaluate(input_fn, steps=2)
    print("step", result["global_step"], "loss", result["loss"])
    print("variables", ",".join(sorted(estimator.get_variable_names())))
    moved = abs(estimator.get_variable_value("bn/moving_mean")).max()
    print("moving mean moved" if moved > 1e-3 else "moving mean stayed")


if __name__ == "__main__":
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.app.run()
