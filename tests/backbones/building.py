"""Backbones built into a graph of their own."""

from __future__ import annotations

import numpy as np

from estimator_tl.compat import tf
from estimator_tl.structure import CallMode


def build(backbone, images, **mode):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        built = backbone.build(tf.constant(images), CallMode(**mode))
        session.run(tf.compat.v1.global_variables_initializer())
        if built.initial_values:
            for name, value in built.initial_values().items():
                built.variables[name].load(value, session)
        return session.run(built.features), len(built.updates), len(built.regularization_losses)


IMAGES = np.random.RandomState(0).rand(2, 8, 8, 3).astype(np.float32)
