"""What a piece of graph building makes, or uses again: variables, their regularizers, and Keras layers."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from estimator_tl.compat.keras2 import load_keras2
from estimator_tl.compat.versions import load_tensorflow

_KERAS_PACKAGES = frozenset({"keras", "tf_keras"})


@dataclasses.dataclass
class Recorded:
    """What a body of code made or used again, each thing once, in the order of its first use.

    Attributes:
      variables: of the graph; those of a strategy as a whole.
      regularizers: pairs of a variable and the function that `get_variable` was to apply to it.
      layers: the Keras 2 layers that were called when they made a variable.
      other_keras: the package of another Keras that made one of the variables, if one did.
    """

    variables: list[Any] = dataclasses.field(default_factory=list)
    regularizers: list[tuple[Any, Callable[[Any], Any]]] = dataclasses.field(default_factory=list)
    layers: list[Any] = dataclasses.field(default_factory=list)
    other_keras: str | None = None


@contextlib.contextmanager
def recorded() -> Iterator[Recorded]:
    """Records what its body makes or, in the further replicas of a strategy, uses again."""
    tf = load_tensorflow()
    found = Recorded()

    def record(variable: Any) -> Any:
        _add(found.variables, variable)
        layer = _calling_layer()
        if layer is not None:
            _add(found.layers, layer)
        return variable

    def create(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        found.other_keras = found.other_keras or _other_keras()
        return record(next_creator(**kwargs))

    scope = tf.compat.v1.get_variable_scope()
    outer = scope.custom_getter

    def get(getter: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        made = outer(getter, *args, **kwargs) if outer else getter(*args, **kwargs)
        regularizer = kwargs.get("regularizer")
        if callable(regularizer) and all(made is not known for known, _ in found.regularizers):
            found.regularizers.append((made, regularizer))
        return record(made)

    # Not a variable_scope of its own: it would forget, when left, which default names its body has used.
    scope.set_custom_getter(get)
    try:
        with tf.variable_creator_scope(create):
            yield found
    finally:
        scope.set_custom_getter(outer)


def _add(known: list[Any], thing: Any) -> None:
    if all(thing is not other for other in known):
        known.append(thing)


def _calling_layer() -> Any:
    """Returns the Keras 2 layer that this thread is calling, or None."""
    engine = load_keras2().layers.Layer.__module__.rpartition(".")[0]
    return importlib.import_module(f"{engine}.base_layer_utils").call_context().layer


def _other_keras() -> str | None:
    """Returns the name of a Keras package that is not this program's Keras 2 and is at work in this thread."""
    others = _KERAS_PACKAGES - {load_keras2().layers.Layer.__module__.partition(".")[0]}
    frame: Any = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in others:
            return package
        frame = frame.f_back
    return None
