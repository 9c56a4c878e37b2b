"""Modules with signatures."""

from __future__ import annotations

import numpy as np

from estimator_tl.compat import tf
from tests.tiny import SIZE

PICTURES = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)


class Signed(tf.Module):
    """Mean colours times a matrix; two signatures, one of them with several outputs."""

    def __init__(self):
        super().__init__()
        values = np.random.RandomState(0).randn(3, 4).astype(np.float32)
        self.kernel = tf.Variable(values, name="colours/kernel")
        self.offset = tf.Variable(np.ones(4, np.float32), name="colours/offset", trainable=False)

    @tf.function(input_signature=[PICTURES])
    def serve(self, pictures):
        colours = tf.reduce_mean(pictures, [1, 2])
        return {"pooled": tf.matmul(colours, self.kernel) + self.offset, "colours": colours}

    @tf.function(input_signature=[PICTURES])
    def embed(self, pictures):
        return {"only": tf.matmul(tf.reduce_mean(pictures, [1, 2]), self.kernel)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    def numbers(self, rows):
        return {"out": rows}


class Called(Signed):
    """The same with a call of several outputs."""

    @tf.function(input_signature=[PICTURES])
    def __call__(self, pictures):
        return self.serve(pictures)
