"""Stands in for the 'estimator' API name of `tensorflow.python.util.tf_export`, gone from TensorFlow 2.16 on.

The Estimator package marks its public symbols with it. Only entries are added.
"""

from __future__ import annotations


def add_estimator_api_name() -> None:
    """Adds the API name 'estimator' and its attribute names where they are missing."""
    from tensorflow.python.util import tf_export

    if hasattr(tf_export, "ESTIMATOR_API_NAME"):
        return
    attributes = type(tf_export.API_ATTRS[tf_export.TENSORFLOW_API_NAME])
    tf_export.API_ATTRS["estimator"] = attributes("_estimator_api_names", "_estimator_api_constants")
    tf_export.API_ATTRS_V1["estimator"] = attributes("_estimator_api_names_v1", "_estimator_api_constants_v1")
    tf_export.ESTIMATOR_API_NAME = "estimator"
