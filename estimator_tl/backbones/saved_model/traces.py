"""Reads what a traced function of a SavedModel takes: its input and its other arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator_tl.backbones.saved_model.interface import Function, Interface
from estimator_tl.compat import tf

#: The inputs of text encoders; the first is required.
TOKENS = ("input_word_ids", "input_mask", "input_type_ids")


def input_of(function: Function) -> Any:
    """Returns the spec of the tensor, or of the dict of tensors, that a function takes; None for other inputs."""
    args, kwargs = function.inputs
    if not args:
        return single_spec(kwargs)
    return args[0] if hasattr(args[0], "dtype") or isinstance(args[0], Mapping) else None


def single_spec(spec: Any) -> Any:
    """Returns the only spec in a dict with one entry; returns anything else unchanged."""
    if isinstance(spec, Mapping) and len(spec) == 1:
        return next(iter(spec.values()))
    return spec


def accepts(spec: Any, tokens: bool) -> bool:
    """Returns whether an input is a batch of images or of texts.

    Args:
      spec: from `input_of`.
      tokens: whether to look for a dict of token ids instead.
    """
    if tokens:
        return isinstance(spec, Mapping) and TOKENS[0] in spec and set(spec) <= set(TOKENS)
    spec = single_spec(spec)
    if spec is None or not hasattr(spec, "shape"):
        return False
    if spec.dtype == tf.string:
        return bool(spec.shape.rank in (None, 1))
    return bool(spec.shape.rank == 4)


def arguments_of(interface: Interface, function: Function) -> dict[str, Any]:
    """Returns the arguments that a function of the model's call was traced with, by name."""
    args, kwargs = function.inputs
    return {**dict(zip(interface.arguments, args)), **kwargs}


def order(interface: Interface, function: Function) -> tuple[bool, bool, bool]:
    """Returns a key that sorts functions: inference before training, then any batch size first, then float32 or text.

    Args:
      interface: of the model.
      function: a trace of its call, or a signature.
    """
    specs = [spec for spec in tf.nest.flatten(input_of(function)) if hasattr(spec, "shape")]
    fixes_batch = any(spec.shape.rank and spec.shape[0] is not None for spec in specs)
    has_usual_type = all(spec.dtype in (tf.float32, tf.string) for spec in specs)
    return bool(training_argument(interface, function)), fixes_batch, not has_usual_type


def training_argument(interface: Interface, function: Function) -> bool | None:
    """Returns the ``training`` value that a function was traced for; None where it has no such argument."""
    value = arguments_of(interface, function).get("training")
    return value if isinstance(value, bool) else None
