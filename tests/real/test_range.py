"""The range that the real MobileNets take, and what is inside of them."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import tf


@pytest.mark.parametrize("name", ["mobilenet_tf2", "mobilenet_tf1"])
def test_models_of_hub_take_images_from_0_to_1(name, request):
    spec = etl.backbone(str(request.getfixturevalue(name))).image_spec
    assert spec.range_text.startswith("[0, 1]")
    np.testing.assert_allclose(spec.preprocess(tf.constant([0.0, 127.5, 255.0])), [0, 0.5, 1], atol=1e-6)


def test_the_application_takes_images_from_minus_1_to_1(mobilenet_weights):
    spec = etl.backbone(f"keras.MobileNet(alpha=0.25, weights={str(mobilenet_weights)!r})").image_spec
    np.testing.assert_allclose(spec.preprocess(tf.constant([0.0, 127.5, 255.0])), [-1, 0, 1], atol=1e-6)
