"""Small networks as users write them, and checkpoints of every kind made from them."""

from __future__ import annotations

import numpy as np

from estimator_tl.compat import keras, tf
from estimator_tl.revival.keras2_view import tensorflow_with_keras2
from tests.tiny import keras_values, randomize

DECAY = 0.9


def batch_norm(net, training, name):
    """Batch norm by hand, as code for TensorFlow 1 has it."""
    v1 = tf.compat.v1
    depth = net.shape[-1]
    with v1.variable_scope(name):
        gamma = v1.get_variable("gamma", [depth], initializer=v1.ones_initializer())
        beta = v1.get_variable("beta", [depth], initializer=v1.zeros_initializer())
        mean = v1.get_variable("moving_mean", [depth], initializer=v1.zeros_initializer(), trainable=False)
        variance = v1.get_variable("moving_variance", [depth], initializer=v1.ones_initializer(), trainable=False)
        batch_mean, batch_variance = mean, variance
        if training:
            batch_mean, batch_variance = tf.nn.moments(net, [0, 1, 2])
            for moving, value in ((mean, batch_mean), (variance, batch_variance)):
                update = v1.assign(moving, DECAY * moving + (1 - DECAY) * value)
                v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
        return tf.nn.batch_normalization(net, batch_mean, batch_variance, beta, gamma, 1e-3)


def convolution(net, depth, name, regularizer=None):
    kernel = tf.compat.v1.get_variable(
        f"{name}/kernel",
        [3, 3, net.shape[-1], depth],
        initializer=tf.compat.v1.glorot_uniform_initializer(),
        regularizer=regularizer,
    )
    return tf.nn.conv2d(net, kernel, 1, "SAME")


def l2(kernel):
    return 1e-3 * tf.reduce_sum(tf.square(kernel))


def v1_network(inputs, training=False):
    """Two convolutions with batch norm on variables of TensorFlow 1."""
    net = convolution(inputs, 4, "stem/conv1", l2)
    net = tf.nn.relu(batch_norm(net, training, "stem/bn"))
    net = convolution(net, 6, "top/conv2")
    return tf.nn.relu(batch_norm(net, training, "top/bn"))


def keras_network(inputs, training=False):
    """The same out of Keras 2 layers."""
    layers = keras.layers
    net = layers.Conv2D(4, 3, use_bias=False, name="conv1", kernel_regularizer=l2)(inputs)
    net = tf.nn.relu(layers.BatchNormalization(name="bn1", momentum=DECAY)(net, training=training))
    net = layers.Conv2D(6, 3, use_bias=False, name="conv2")(net)
    return tf.nn.relu(layers.BatchNormalization(name="bn2", momentum=DECAY)(net, training=training))


def layers_network(inputs, training=False):
    """The same out of TensorFlow 1's layers, which name themselves."""
    layers = tensorflow_with_keras2().compat.v1.layers
    net = layers.conv2d(inputs, 4, 3, use_bias=False, kernel_regularizer=l2)
    net = tf.nn.relu(layers.batch_normalization(net, momentum=DECAY, training=training))
    net = layers.conv2d(net, 6, 3, use_bias=False)
    return tf.nn.relu(layers.batch_normalization(net, momentum=DECAY, training=training))


def keras_model_network(inputs, training=False):
    """A Functional model made and called inside."""
    picture = keras.Input(inputs.shape[1:])
    net = keras.layers.Conv2D(4, 3, use_bias=False, name="conv1")(picture)
    net = keras.layers.BatchNormalization(name="bn1", momentum=DECAY)(net)
    return keras.Model(picture, net)(inputs, training=training)


def endpoints_network(inputs, training=False):
    """A dict of endpoints; the last is a classifier that nobody transfers."""
    v1 = tf.compat.v1
    net = v1_network(inputs, training)
    pooled = tf.reduce_mean(net, [1, 2])
    logits = pooled @ v1.get_variable("classifier/kernel", [6, 10]) + v1.get_variable("classifier/bias", [10])
    last = batch_norm(logits[:, tf.newaxis, tf.newaxis], training, "classifier/bn")
    return {"maps": net, "pooled": pooled, "logits": logits, "last": last}


def default_network(inputs, training=False):
    return {"default": v1_network(inputs, training), "inputs": inputs}


def late_network(inputs, training=False):
    """Makes its variables from the output to the input, some of them by one tensor."""
    v1 = tf.compat.v1
    zeros = tf.zeros([3])
    bias = v1.get_variable("b", initializer=zeros)
    scale = v1.get_variable("a", initializer=zeros)
    v1.train.get_or_create_global_step()
    return inputs * scale + bias


def dropout_network(inputs, training=False):
    net = convolution(inputs, 4, "stem/conv1")
    return tf.nn.dropout(net, 0.5) if training else net


def tuple_network(inputs, training=False):
    return v1_network(inputs, training), {}


def silent_network(inputs, training=False):
    """Its batch norm never tells UPDATE_OPS."""
    with tf.Graph().as_default():
        pass
    net = v1_network(inputs, training)
    del tf.compat.v1.get_collection_ref(tf.compat.v1.GraphKeys.UPDATE_OPS)[:]
    return net


def failing_network(inputs, training=False):
    return inputs.no_such_method()


def variableless_network(inputs, training=False):
    return inputs * 2.0


def without_training(inputs):
    return inputs


def random_values(network, size, seed):
    """Values unlike any initializer's for the variables of a network, by name."""
    with tf.Graph().as_default():
        network(tf.compat.v1.placeholder(tf.float32, [None, size, size, 3]))
        shapes = {v.op.name: v.shape.as_list() for v in tf.compat.v1.global_variables()}
    rng = np.random.RandomState(seed)
    shapes.pop("global_step", None)
    values = {name: np.asarray(rng.randn(*shape) * 0.2, np.float32) for name, shape in shapes.items()}
    positive = ("gamma", "moving_variance")
    return {n: 1 + np.abs(value) if n.endswith(positive) else value for n, value in values.items()}


def save_keras(path, seed):
    """Writes the object-based checkpoint of a Keras model like `keras_network`; returns its values by name."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, use_bias=False, name="conv1"),
            layers.BatchNormalization(name="bn1"),
            layers.ReLU(),
            layers.Conv2D(6, 3, use_bias=False, name="conv2"),
            layers.BatchNormalization(name="bn2"),
        ]
    )
    randomize(model, seed)
    model.save_weights(str(path), save_format="tf")
    return keras_values(model)


def save_v1(path, values, shards=1, version=2):
    """Writes a name-based checkpoint, as `tf.compat.v1.train.Saver` does; returns its prefix."""
    config = tf.compat.v1.ConfigProto(device_count={"CPU": shards})
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        variables = {}
        for number, (name, value) in enumerate(values.items()):
            with tf.device(f"/cpu:{number % shards}"):
                variables[name] = tf.compat.v1.Variable(value, name=f"v{number}")
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(variables, sharded=shards > 1, write_version=version)
        return saver.save(session, str(path), write_state=False)
