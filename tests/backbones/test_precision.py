"""Sources that compute in other precisions than float32: their features are float32 all the same."""

from __future__ import annotations

import numpy as np
import pytest

from estimator_tl.backbones import Backbone
from estimator_tl.compat import tf
from estimator_tl.errors import UserError


class Pooling(Backbone):
    """A source that only pools."""

    handle, pooling = "source", "avg"
    digest = values = build = None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_pooled_features_are_float32(dtype):
    """A mean of 4,096 values of about 1 is taken in float32: float16 would lose its last digits, or overflow."""
    backbone = Pooling()
    values = (np.random.RandomState(0).rand(2, 64, 64, 3) + 30).astype(tf.as_dtype(dtype).as_numpy_dtype)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        pooled = backbone.pool(tf.constant(values))
        assert pooled.dtype == tf.float32
        result = session.run(pooled)
    np.testing.assert_allclose(result, values.astype(np.float64).mean((1, 2)), rtol=1e-5)


def test_features_that_are_whole_numbers_are_refused():
    backbone = Pooling()
    message = (
        "source gives int32, not floating-point features; name an output that holds numbers to learn from, with "
        "features=."
    )
    with tf.Graph().as_default(), pytest.raises(UserError) as error:
        backbone.pool(tf.zeros([2, 4], tf.int32))
    assert str(error.value) == message
