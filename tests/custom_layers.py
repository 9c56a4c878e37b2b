"""Layers and functions of a user, without which the files of this test suite's user cannot be read."""

from __future__ import annotations

from estimator_tl.compat import keras, tf


class Scale(keras.layers.Layer):
    """Multiplies each channel by a weight."""

    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, shape):
        self.factor = self.add_weight("factor", [shape[-1]], initializer=keras.initializers.Constant(self.start))
        super().build(shape)

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {**super().get_config(), "start": self.start}


def bent(inputs):
    return inputs * tf.sigmoid(inputs)


NUMBER = 1
