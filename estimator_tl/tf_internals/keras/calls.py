"""The layers of a Keras 2 model at any depth, and the `training` argument with which they are called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from estimator_tl.compat.keras2 import load_keras2


def inner_layers(layer: Any) -> list[Any]:
    """Returns the layers inside a layer or model at any depth, those of wrappers and recurrent cells included.

    `submodules` does the same by walking every attribute, and fails at the caches of recurrent cells in a graph.
    """
    return list(layer._flatten_layers(include_self=False))


def takes_training(layer: Any) -> bool:
    """Returns whether a layer's `call` has a `training` argument."""
    return bool(layer._expects_training_arg)


def draws_by_itself(layer: Any) -> bool:
    """Returns whether Keras made a layer to draw random numbers: dropout, noise, augmentation, recurrent cells."""
    keras = load_keras2()
    return isinstance(layer, keras.__internal__.layers.BaseRandomLayer)


def fix_training(layer: Any, training: bool) -> None:
    """Has every later call of a layer be one with this `training`, whatever its caller says.

    The caller may be the model's own configuration, as in ``base(x, training=False)``, or code of a layer around it.
    """
    layer.call = _with_training(layer.call, training)


def _with_training(call: Callable[..., Any], training: bool) -> Callable[..., Any]:
    signature = inspect.signature(call)
    names = list(signature.parameters)
    place = names.index("training") if "training" in names else len(names)

    @functools.wraps(call)
    def with_training(*args: Any, **kwargs: Any) -> Any:
        if len(args) > place:
            return call(*args[:place], training, *args[place + 1 :], **kwargs)
        kwargs["training"] = training
        return call(*args, **kwargs)

    with_training.__signature__ = signature  # type: ignore[attr-defined]  # recurrent layers look at it
    return with_training


def plain_variable(variable: Any) -> Any:
    """Returns a Keras weight without the wrapper by which layers of mixed precision read it in another type.

    Under a strategy the wrapper hides from optimizers that it is one variable in several replicas.
    """
    return variable._variable if type(variable).__name__.startswith("AutoCast") else variable
