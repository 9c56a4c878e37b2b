"""Estimators, past their public interface."""

from __future__ import annotations

import copy
from typing import Any

from estimator_tl.revival.api import load_estimator


def without_saving(estimator: Any) -> Any:
    """Returns the same Estimator with a RunConfig that saves no checkpoints, as a hook does it.

    `RunConfig.replace` would copy its strategy as well, which cannot be copied once it works.
    """
    made, config = copy.copy(estimator), copy.copy(estimator.config)
    config._save_checkpoints_steps = config._save_checkpoints_secs = None
    made._config = config
    return made


def with_config(estimator: Any, config: Any) -> Any:
    """Returns an Estimator with the same model_fn and params and another RunConfig, e.g. of no cluster."""
    made = load_estimator().Estimator
    return made(estimator._model_fn, config=config, params=estimator.params or None)


def call_input_fn(estimator: Any, input_fn: Any, mode: str) -> Any:
    """Returns what an input_fn gives, called with those of params, config and mode that it takes."""
    return estimator._call_input_fn(input_fn, mode)


def is_for_tpu(estimator: Any) -> bool:
    """Returns whether an Estimator is a TPUEstimator that trains on its TPU."""
    context = getattr(estimator, "_ctx", None)
    return bool(context is not None and getattr(context, "_use_tpu", False))
