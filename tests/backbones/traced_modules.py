"""Modules saved with chosen traces."""

from __future__ import annotations

from estimator_tl.compat import tf
from tests.tiny import SIZE

IMAGES = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)


class Switched(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.ones([3, 4]), name="kernel")
        self.mean = tf.Variable(tf.zeros([3]), trainable=False, name="bn/moving_mean")

    @tf.function
    def __call__(self, images, training=False):
        colours = tf.reduce_mean(images, [1, 2])
        if training:
            self.mean.assign(tf.reduce_mean(colours, 0))
        return tf.matmul(colours - self.mean, self.kernel)


def save_traces(path, *values):
    model = Switched()
    for value in values:
        model.__call__.get_concrete_function(IMAGES, training=value)
    tf.saved_model.save(model, str(path))
    return str(path)
