"""The model of the trainer package: a RegressionHead and a custom metric."""

import tensorflow as tf


def input_fn():
    x = tf.random.stateless_normal([40, 2], seed=[1, 2])
    return tf.data.Dataset.from_tensor_slices(({"x": x}, tf.reduce_sum(x, 1, keepdims=True))).repeat(2).batch(10)


def serving_input_receiver_fn():
    features = {"x": tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")}
    return tf.estimator.export.ServingInputReceiver(features, features)


def model_fn(features, labels, mode, params):
    head = tf.estimator.RegressionHead()
    dense = tf.keras.layers.Dense(1)
    logits = dense(features["x"])
    optimizer = tf.keras.optimizers.legacy.SGD(params["learning_rate"])
    optimizer.iterations = tf.compat.v1.train.get_or_create_global_step()
    return head.create_estimator_spec(
        features, mode, logits, labels=labels, optimizer=optimizer, trainable_variables=dense.trainable_weights
    )


def add_error(labels, predictions):
    metric = tf.keras.metrics.MeanAbsoluteError(name="absolute_error")
    metric.update_state(labels, predictions["predictions"])
    return {"absolute_error": metric}
