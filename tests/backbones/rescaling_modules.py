"""SavedModels that do something to their images before the first weights."""

from __future__ import annotations

import numpy as np

from estimator_tl.compat import tf

SIZE = 8
IMAGES = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)
CAFFE = (103.939, 116.779, 123.68)


class Module(tf.Module):
    """Calls a rescaling and then a convolution, each in a function of its own.

    Args:
      rescale: takes this module and images.
      deep: how many functions lie around the convolution.
    """

    def __init__(self, rescale, deep=1):
        super().__init__()
        self.kernel = tf.Variable(np.random.RandomState(0).randn(3, 3, 3, 4).astype(np.float32), name="kernel")
        self.mean = tf.constant(CAFFE)
        self._rescale, self._deep = rescale, deep

    @tf.function(input_signature=[IMAGES])
    def __call__(self, images):
        return self._inner(images, self._deep)

    @tf.function
    def _inner(self, images, deep):
        if deep:
            return self._inner(images, deep - 1)
        return tf.reduce_mean(tf.nn.conv2d(self._rescale(self, images), self.kernel, 1, "SAME"), [1, 2])


class Statistics(tf.Module):
    """Subtracts a mean and divides by a deviation that are variables, as graphs of TensorFlow 1 do."""

    def __init__(self, mean, deviation):
        super().__init__()
        self.kernel = tf.Variable(np.random.RandomState(0).randn(3, 3, 3, 4).astype(np.float32), name="kernel")
        self.mean = tf.Variable(tf.fill([3], float(mean)), trainable=False, name="mean")
        self.deviation = tf.Variable(tf.fill([3], float(deviation)), trainable=False, name="deviation")

    @tf.function(input_signature=[IMAGES])
    def __call__(self, images):
        normal = (images - self.mean) / self.deviation
        return tf.reduce_mean(tf.nn.conv2d(normal, self.kernel, 1, "SAME"), [1, 2])


class Conditional(tf.Module):
    """Rescales and convolves inside of a condition."""

    def __init__(self, other=lambda images: images / 255.0):
        super().__init__()
        self.kernel = tf.Variable(np.random.RandomState(0).randn(3, 3, 3, 4).astype(np.float32), name="kernel")
        self._other = other

    @tf.function(input_signature=[IMAGES])
    def __call__(self, images):
        features = tf.cond(
            tf.reduce_mean(images) > 0.1,  # what decides is not known before the run
            lambda: tf.nn.conv2d(images / 255.0, self.kernel, 1, "SAME"),
            lambda: tf.nn.conv2d(self._other(images), self.kernel, 1, "SAME"),
        )
        return tf.reduce_mean(features, [1, 2])


class Switched(tf.Module):
    """Has a call for inference and one for training, which augments."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.random.RandomState(0).randn(3, 3, 3, 4).astype(np.float32), name="kernel")

    @tf.function
    def __call__(self, images, training=False):
        if training:
            images = tf.image.random_brightness(images, 20.0)
        return tf.reduce_mean(tf.nn.conv2d(images / 255.0, self.kernel, 1, "SAME"), [1, 2])


class SignatureOnly(tf.Module):
    """Cannot be called; has a signature."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.random.RandomState(0).randn(3, 3, 3, 4).astype(np.float32), name="kernel")

    @tf.function(input_signature=[IMAGES])
    def serve(self, images):
        return {"features": tf.reduce_mean(tf.nn.conv2d(images / 127.5 - 1, self.kernel, 1, "SAME"), [1, 2])}


def save(module, path):
    """Saves a module; returns the path."""
    if isinstance(module, Switched):
        for training in (False, True):
            module.__call__.get_concrete_function(IMAGES, training=training)
    signatures = module.serve if isinstance(module, SignatureOnly) else None
    tf.saved_model.save(module, str(path), signatures=signatures)
    return str(path)
