"""Keras models that do something to their images before the first weights, as users write them."""

from __future__ import annotations

import numpy as np

from estimator_tl.compat import keras, tf

LAYERS = keras.layers
SIZE = 8
IMAGENET = {"mean": [0.485, 0.456, 0.406], "variance": [0.229**2, 0.224**2, 0.225**2]}
IMAGENET_BYTES = {"mean": [123.675, 116.28, 103.53], "variance": [58.395**2, 57.12**2, 57.375**2]}


class Divided(LAYERS.Layer):
    """A layer of a user without weights."""

    def call(self, inputs):
        return inputs / 127.5 - 1


class Stem(LAYERS.Layer):
    """A layer of a user that rescales and convolves."""

    def build(self, shape):
        self.kernel = self.add_weight("kernel", (3, 3, shape[-1], 4))

    def call(self, inputs):
        return tf.nn.conv2d(inputs / 127.5 - 1, self.kernel, 1, "SAME")


class Subclassed(keras.Model):
    """A model without a graph of layers."""

    def __init__(self):
        super().__init__()
        self.rescaling = LAYERS.Rescaling(1 / 127.5, offset=-1)
        self.convolution = LAYERS.Conv2D(4, 3)

    def call(self, inputs, training=False):
        return tf.reduce_mean(self.convolution(self.rescaling(inputs)), [1, 2])


def network(tensor):
    return LAYERS.GlobalAveragePooling2D()(LAYERS.Conv2D(4, 3, name="conv1")(tensor))


def functional(rescale, channels=3, size=SIZE):
    """A network behind what `rescale` does to the input."""
    inputs = keras.Input((size, size, channels))
    return keras.Model(inputs, network(rescale(inputs)))


def sequential(*layers):
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers, LAYERS.Conv2D(4, 3), LAYERS.Flatten()])


def rescaling():
    return LAYERS.Rescaling(1 / 127.5, offset=-1)


def augmentation():
    return keras.Sequential([LAYERS.RandomFlip("horizontal"), LAYERS.RandomRotation(0.1), LAYERS.RandomContrast(0.2)])


def around(base, before=lambda inputs: inputs, **call):
    """A head on a nested model, as Keras's guide to transfer learning has it."""
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, LAYERS.Dense(3)(base(before(inputs), **call)))


def adapted(low, high):
    """A normalization that saw uniform noise in a range."""
    layer = LAYERS.Normalization()
    layer.adapt(np.random.RandomState(0).uniform(low, high, (50, SIZE, SIZE, 3)).astype(np.float32))
    return layer


def batch_norm(mean, variance):
    """A model that begins with batch norm of these statistics."""
    layer = LAYERS.BatchNormalization()
    model = functional(layer)
    layer.set_weights([np.ones(3), np.zeros(3), np.full(3, mean), np.full(3, variance)])
    return model


def branches(first, second):
    inputs = keras.Input((SIZE, SIZE, 3))
    outputs = [LAYERS.Conv2D(4, 3)(rescale(inputs)) for rescale in (first, second)]
    return keras.Model(inputs, LAYERS.GlobalAveragePooling2D()(LAYERS.Concatenate()(outputs)))


def attention(tensor):
    tokens = LAYERS.Reshape((SIZE, SIZE * 3))(tensor)
    return keras.Model(tensor, LAYERS.Flatten()(LAYERS.MultiHeadAttention(2, 4)(tokens, tokens)))
