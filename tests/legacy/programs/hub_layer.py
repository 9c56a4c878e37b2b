"""A hub.KerasLayer in a model_fn, its trainable weights handed to the optimizer."""

import sys

import tensorflow as tf
import tensorflow_hub as hub

module, model_dir = sys.argv[1:]


def input_fn():
    images = tf.random.stateless_uniform([16, 8, 8, 3], seed=[3, 4])
    return tf.data.Dataset.from_tensor_slices(({"image": images}, tf.range(16) % 2)).repeat().batch(8)


def model_fn(features, labels, mode):
    layer = hub.KerasLayer(module, trainable=True)
    embedding = layer(features["image"], training=False)
    logits = tf.keras.layers.Dense(2, name="logits")(embedding)
    loss = tf.compat.v1.losses.sparse_softmax_cross_entropy(labels, logits)
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.1)
    weights = layer.trainable_weights + tf.compat.v1.trainable_variables("logits")
    train_op = optimizer.minimize(loss, tf.compat.v1.train.get_global_step(), var_list=weights)
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


config = tf.estimator.RunConfig(model_dir, tf_random_seed=5)
estimator = tf.estimator.Estimator(model_fn, config=config)
estimator.train(input_fn, steps=1)
names = [name for name in estimator.get_variable_names() if "kernel" in name]
first = {name: estimator.get_variable_value(name) for name in names}
estimator.train(input_fn, steps=5)
for name in sorted(names):
    print(name, "moved" if abs(estimator.get_variable_value(name) - first[name]).max() > 0 else "stayed")
print("step", estimator.evaluate(input_fn, steps=1)["global_step"])
