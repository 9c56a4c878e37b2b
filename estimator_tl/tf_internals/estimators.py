"""Functions that use private attributes of Estimators."""

from __future__ import annotations

import copy
from typing import Any

from estimator_tl.revival.api import load_estimator


def without_saving(estimator: Any) -> Any:
    """Returns the Estimator with a RunConfig that saves no checkpoints, because a hook saves them.

    `RunConfig.replace` would also copy the strategy, and a strategy in use cannot be copied.
    """
    result, config = copy.copy(estimator), copy.copy(estimator.config)
    config._save_checkpoints_steps = config._save_checkpoints_secs = None
    result._config = config
    return result


def with_config(estimator: Any, config: Any) -> Any:
    """Returns an Estimator with the same model_fn and params and another RunConfig, for example without a cluster."""
    factory = load_estimator().Estimator
    return factory(estimator._model_fn, config=config, params=estimator.params or None)


def call_input_fn(estimator: Any, input_fn: Any, mode: str) -> Any:
    """Calls an input_fn with whichever of params, config and mode it accepts, and returns its result."""
    return estimator._call_input_fn(input_fn, mode)


def is_for_tpu(estimator: Any) -> bool:
    """True for a TPUEstimator that trains on a TPU."""
    context = getattr(estimator, "_ctx", None)
    return bool(context is not None and getattr(context, "_use_tpu", False))
