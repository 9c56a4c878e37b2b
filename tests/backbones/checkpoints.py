"""What the tests of checkpoints share: a network's values, its specs, and what a call of it gives."""

from __future__ import annotations

import numpy as np

from estimator_tl.compat import tf
from estimator_tl.structure import CallMode
from estimator_tl.tf_internals.files.checkpoints import assign
from tests import networks
from tests.backbones.building import IMAGES
from tests.tiny import SIZE

VALUES = networks.random_values(networks.v1_network, SIZE, seed=5)
TRAINABLE = frozenset(name for name in VALUES if "moving" not in name)
TOP = frozenset(name for name in TRAINABLE if name.startswith("top/"))


def spec(path, network="v1_network", **arguments):
    listed = "".join(f", {name}={value!r}" for name, value in arguments.items())
    place = network if ":" in network else f"tests.networks:{network}"
    return f"checkpoint({str(path)!r}, network={place!r}, image_size={SIZE}{listed})"


def assert_values(backbone, expected):
    values = backbone.values()
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value, err_msg=name)


def built(backbone, images=IMAGES, **mode):
    """Features, update ops' effects on the variables, and regularization losses of one call."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = backbone.build(tf.constant(images), CallMode(**mode))
        session.run(tf.compat.v1.global_variables_initializer())
        assign(session, made.variables, made.initial_values())
        features, losses = session.run([made.features, dict(made.regularization_losses)])
        session.run(list(made.updates))
        return features, session.run(dict(made.variables)), losses
