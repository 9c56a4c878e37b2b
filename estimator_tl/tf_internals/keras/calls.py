"""The layers of a Keras 2 model at any depth, and the `training` argument of their calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from estimator_tl.compat.keras2 import load_keras2
from estimator_tl.types import Layer, Variable


def inner_layers(layer: Layer) -> list[Any]:
    """Returns the layers inside a layer or model at any depth, also inside wrappers and recurrent cells.

    Keras's `submodules` walks every attribute for this, and fails in a graph at the caches of recurrent cells.
    """
    return list(layer._flatten_layers(include_self=False))


def takes_training(layer: Layer) -> bool:
    """True if the `call` of a layer has a `training` argument."""
    return bool(layer._expects_training_arg)


def is_random_by_design(layer: Layer) -> bool:
    """True for Keras's layers that draw random numbers: dropout, noise, augmentation, recurrent cells."""
    keras = load_keras2()
    return isinstance(layer, keras.__internal__.layers.BaseRandomLayer)


def fix_training(layer: Layer, training: bool) -> None:
    """Makes every later call of a layer use this value of `training`, whatever the caller passes.

    The caller may be the configuration of the model, as in ``base(x, training=False)``, or the code of an outer layer.
    """
    layer.call = _with_training(layer.call, training)


def _with_training(call: Callable[..., Any], training: bool) -> Callable[..., Any]:
    signature = inspect.signature(call)
    names = list(signature.parameters)
    position = names.index("training") if "training" in names else len(names)

    @functools.wraps(call)
    def with_training(*args: Any, **kwargs: Any) -> Any:
        if len(args) > position:
            return call(*args[:position], training, *args[position + 1 :], **kwargs)
        kwargs["training"] = training
        return call(*args, **kwargs)

    with_training.__signature__ = signature  # type: ignore[attr-defined]  # recurrent layers inspect it
    return with_training


def plain_variable(variable: Variable) -> Any:
    """Returns a Keras weight without the wrapper by which mixed-precision layers read it in another dtype.

    Under a strategy, the wrapper hides from optimizers that the weight is one variable with a copy in each replica.
    """
    return variable._variable if type(variable).__name__.startswith("AutoCast") else variable
