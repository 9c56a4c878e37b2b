"""Estimators, past their public interface."""

from __future__ import annotations

import copy
from typing import Any


def without_saving(estimator: Any) -> Any:
    """Returns the same Estimator with a RunConfig that saves no checkpoints, as a hook does it.

    `RunConfig.replace` would copy its strategy as well, which cannot be copied once it works.
    """
    made, config = copy.copy(estimator), copy.copy(estimator.config)
    config._save_checkpoints_steps = config._save_checkpoints_secs = None
    made._config = config
    return made


def call_input_fn(estimator: Any, input_fn: Any, mode: str) -> Any:
    """Returns what an input_fn gives, called with those of params, config and mode that it takes."""
    return estimator._call_input_fn(input_fn, mode)
