"""Sources with several outputs, and what they give."""

from __future__ import annotations

import numpy as np

import estimator_tl as etl
from estimator_tl.compat import tf
from tests.tiny import SIZE

PICTURES = np.random.RandomState(1).rand(2, SIZE, SIZE, 3).astype(np.float32)


class Endpoints(tf.Module):
    """Two layers in Hub's format for images, which returns what is inside on request; the size of pictures is free."""

    def __init__(self):
        super().__init__()
        draw = np.random.RandomState(0)
        self.first = tf.Variable(draw.randn(3, 4).astype("f"), name="first/kernel")
        self.second = tf.Variable(draw.randn(4, 5).astype("f"), name="second/kernel")
        self.variables_of_hub = [self.first, self.second]

    @tf.function
    def __call__(self, inputs, training=False, return_endpoints=False):
        first = tf.nn.relu(tf.einsum("bhwc,cd->bhwd", inputs, self.first))
        second = tf.reduce_mean(tf.einsum("bhwc,cd->bhwd", first, self.second), [1, 2])
        if training:
            second += 1.0
        return {"default": second, "first": first} if return_endpoints else second


def features_of(backbone, inputs=PICTURES):
    model_fn = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        spec = model_fn(tf.constant(inputs), None, "infer")
        scaffold = spec.scaffold or tf.compat.v1.train.Scaffold()
        scaffold.finalize()
        session.run([scaffold.init_op, scaffold.local_init_op], scaffold.init_feed_dict)
        if scaffold.init_fn:
            scaffold.init_fn(session)
        found = session.run(spec.predictions["features"])
    assert backbone.output_shape is None or backbone.output_shape[-1] == found.shape[-1]
    return found
