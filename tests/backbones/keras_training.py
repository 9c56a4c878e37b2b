"""Keras models called in training."""

from __future__ import annotations

from estimator_tl.compat import tf
from estimator_tl.structure import CallMode
from tests.backbones.building import IMAGES


def training_features(backbone, **mode):
    """Returns the features of two runs of a graph for training."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        built = backbone.build(tf.constant(IMAGES), CallMode(**mode))
        session.run(tf.compat.v1.global_variables_initializer())
        for name, value in built.initial_values().items():
            built.variables[name].load(value, session)
        return session.run(built.features), session.run(built.features)
