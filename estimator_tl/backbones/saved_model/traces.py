"""What a traced function of a SavedModel takes: its input, and the arguments besides it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator_tl.backbones.saved_model.interface import Function, Interface
from estimator_tl.compat import tf

#: What encoders of text take; the first always.
TOKENS = ("input_word_ids", "input_mask", "input_type_ids")


def input_of(function: Function) -> Any:
    """Returns the spec of the one tensor, or of the dict of tensors, that a function takes; None for others."""
    args, kwargs = function.inputs
    if args:
        return args[0] if hasattr(args[0], "dtype") or isinstance(args[0], Mapping) else None
    return next(iter(kwargs.values())) if len(kwargs) == 1 else kwargs


def alone(given: Any) -> Any:
    """Returns the one tensor's spec of a dict that holds no other; anything else as it is."""
    return next(iter(given.values())) if isinstance(given, Mapping) and len(given) == 1 else given


def takes(given: Any, tokens: bool) -> bool:
    """Whether an input, from `input_of`, is a batch of images or texts; or of token ids, if it is to be that."""
    if tokens:
        return isinstance(given, Mapping) and TOKENS[0] in given and set(given) <= set(TOKENS)
    given = alone(given)
    if given is None or not hasattr(given, "shape"):
        return False
    if given.dtype == tf.string:
        return bool(given.shape.rank in (None, 1))
    return bool(given.shape.rank == 4)


def arguments_of(interface: Interface, function: Function) -> dict[str, Any]:
    """Returns the arguments besides the input by name with which a function of the model's call was traced."""
    args, kwargs = function.inputs
    return {**dict(zip(interface.arguments, args)), **kwargs}


def order(interface: Interface, function: Function) -> tuple[bool, bool, bool]:
    """Sorts functions: those for inference first, and of these those for batches of any size, in float32 or text."""
    specs = [spec for spec in tf.nest.flatten(input_of(function)) if hasattr(spec, "shape")]
    fixes_batch = any(spec.shape.rank and spec.shape[0] is not None for spec in specs)
    usual = all(spec.dtype in (tf.float32, tf.string) for spec in specs)
    return bool(training_argument(interface, function)), fixes_batch, not usual


def training_argument(interface: Interface, function: Function) -> bool | None:
    """Returns the ``training`` value that a function was traced for; None where it has no such argument."""
    value = arguments_of(interface, function).get("training")
    return value if isinstance(value, bool) else None
