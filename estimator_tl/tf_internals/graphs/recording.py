"""Records what code creates or reuses while it builds a graph: variables, their regularizers, and Keras layers."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from estimator_tl.compat.keras2 import load_keras2
from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.types import Variable

_KERAS_PACKAGES = frozenset({"keras", "tf_keras"})


@dataclasses.dataclass
class Recorded:
    """What a block of code created or reused: each object once, in the order of first use.

    Attributes:
      variables: variables of the graph; under a strategy, one entry for all replicas.
      regularizers: pairs of a variable and the regularizer that `get_variable` received for it.
      layers: Keras 2 layers that created or reused a variable when they were called.
      other_keras: the package of a Keras other than Keras 2 that created one of the variables, or None.
    """

    variables: list[Variable] = dataclasses.field(default_factory=list)
    regularizers: list[tuple[Any, Callable[[Any], Any]]] = dataclasses.field(default_factory=list)
    layers: list[Any] = dataclasses.field(default_factory=list)
    other_keras: str | None = None


@contextlib.contextmanager
def recorded() -> Iterator[Recorded]:
    """Records what the body of the `with` block creates or, in later replicas of a strategy, reuses."""
    tf = load_tensorflow()
    record = Recorded()

    def add(variable: Variable) -> Any:
        _add(record.variables, variable)
        layer = _calling_layer()
        if layer is not None:
            _add(record.layers, layer)
        return variable

    def create(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        record.other_keras = record.other_keras or _other_keras()
        return add(next_creator(**kwargs))

    scope = tf.compat.v1.get_variable_scope()
    outer = scope.custom_getter

    def get(getter: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        variable = outer(getter, *args, **kwargs) if outer else getter(*args, **kwargs)
        regularizer = kwargs.get("regularizer")
        if callable(regularizer) and all(variable is not other for other, _ in record.regularizers):
            record.regularizers.append((variable, regularizer))
        return add(variable)

    # A new variable_scope would not do: when it ends, it forgets which default names its body has used.
    scope.set_custom_getter(get)
    try:
        with tf.variable_creator_scope(create):
            yield record
    finally:
        scope.set_custom_getter(outer)


def _add(things: list[Any], thing: Any) -> None:
    if all(thing is not other for other in things):
        things.append(thing)


def _calling_layer() -> Any:
    """Returns the Keras 2 layer whose call is running in this thread, or None."""
    engine = load_keras2().layers.Layer.__module__.rpartition(".")[0]
    return importlib.import_module(f"{engine}.base_layer_utils").call_context().layer


def _other_keras() -> str | None:
    """Returns the name of a Keras package other than Keras 2 with code on the call stack of this thread, or None."""
    others = _KERAS_PACKAGES - {load_keras2().layers.Layer.__module__.partition(".")[0]}
    frame: Any = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in others:
            return package
        frame = frame.f_back
    return None
