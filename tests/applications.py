"""Keras Applications with random weights through which pictures and gradients pass."""

from __future__ import annotations

import numpy as np

from estimator_tl.compat import keras
from estimator_tl.tf_internals.eager import run_eagerly_in_thread


def save_random(name, path, size, **arguments):
    """Writes the weights of a network whose batch norm was made on random pictures; returns the model.

    What initializers give fades out over a hundred layers whose batch norm was never trained.
    """
    return run_eagerly_in_thread(lambda: _save_random(name, path, size, arguments))


def _save_random(name, path, size, arguments):
    model = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(size, size, 3), **arguments)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(np.random.RandomState(0).rand(8, size, size, 3).astype(np.float32), training=True)
    model.save_weights(str(path))
    return model


def values(model):
    """Returns the values in layer order, each once, by name."""
    return {weight.name.removesuffix(":0"): weight.numpy() for layer in model.layers for weight in layer.weights}


def last(model, count):
    """Returns the names of what the last layers train."""
    return frozenset(w.name.removesuffix(":0") for layer in model.layers[-count:] for w in layer.trainable_weights)
