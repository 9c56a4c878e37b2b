"""A Keras model by subclassing."""

from __future__ import annotations

from estimator_tl.compat import keras

LAYERS = keras.layers


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = LAYERS.Conv2D(3, 3, name="conv")
        self.norm = LAYERS.BatchNormalization(name="norm")

    def call(self, inputs, training=False):
        return self.norm(self.conv(inputs), training=training)
