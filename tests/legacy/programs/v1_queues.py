"""TensorFlow 1 to the letter: v2 behavior off, queue runners, then a one-shot iterator."""

import sys

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

x = np.random.RandomState(0).randn(64, 3).astype(np.float32)
y = x.sum(axis=1, keepdims=True)
queue_input = tf.estimator.inputs.numpy_input_fn({"x": x}, y, batch_size=16, num_epochs=None, shuffle=True)


def iterator_input():
    dataset = tf.data.Dataset.from_tensor_slices(({"x": x}, y)).batch(16)
    return dataset.make_one_shot_iterator().get_next()


def model_fn(features, labels, mode):
    assert not tf.executing_eagerly()
    assert "_ref" in tf.get_variable("counter", [], trainable=False).dtype.name
    out = tf.layers.dense(features["x"], 1, name="out", kernel_regularizer=tf.keras.regularizers.l2(1e-6))
    loss = tf.losses.mean_squared_error(labels, out) + tf.losses.get_regularization_loss()
    train_op = tf.train.AdagradOptimizer(0.5).minimize(loss, tf.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, predictions=out, loss=loss, train_op=train_op)


estimator = tf.estimator.Estimator(model_fn, sys.argv[1])
logged = tf.train.LoggingTensorHook({"step": "global_step"}, every_n_iter=50)
estimator.train(queue_input, hooks=[logged], steps=100)
print("step and loss", estimator.evaluate(iterator_input))
classifier = tf.estimator.LinearRegressor([tf.feature_column.numeric_column("x", shape=(3,))], optimizer="Ftrl")
classifier.train(queue_input, steps=50)
print("regressor loss below", classifier.evaluate(iterator_input)["average_loss"] < 1.0)
