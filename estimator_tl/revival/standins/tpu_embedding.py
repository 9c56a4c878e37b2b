"""Stand-in for `tensorflow.python.tpu.tpu_embedding`, which TensorFlow removed in 2.16.

TPU embedding needs TensorFlow 2.15. The names exist here so that the Estimator
package imports; their use raises an error that says so.
"""

from __future__ import annotations

from typing import Any

TRAINING = "training"
INFERENCE = "inference"


class _Unavailable:
    def __init__(self, *args: Any, **kwargs: Any):
        raise NotImplementedError(
            f"tpu_embedding.{type(self).__name__} was removed from TensorFlow in 2.16; "
            "use TensorFlow 2.15 for TPU embedding, or an embedding without it."
        )


class AdagradParameters(_Unavailable):
    """Removed optimizer parameters."""


class AdamParameters(_Unavailable):
    """Removed optimizer parameters."""


class FtrlParameters(_Unavailable):
    """Removed optimizer parameters."""


class MomentumParameters(_Unavailable):
    """Removed optimizer parameters."""


class ProximalAdagradParameters(_Unavailable):
    """Removed optimizer parameters."""


class RMSPropParameters(_Unavailable):
    """Removed optimizer parameters."""


class StochasticGradientDescentParameters(_Unavailable):
    """Removed optimizer parameters."""


class FeatureConfig(_Unavailable):
    """Removed feature configuration."""


class TableConfig(_Unavailable):
    """Removed table configuration."""


class TPUEmbedding(_Unavailable):
    """Removed embedding engine."""
