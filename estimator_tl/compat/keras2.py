"""Keras 2 on every TensorFlow.

Up to TensorFlow 2.15 `tf.keras` is Keras 2. From 2.16 on `tf.keras` is Keras 3
unless TF_USE_LEGACY_KERAS was set before its first use, and Keras 2 lives in
the package `tf_keras`. On 2.15 the classes of `tf_keras` are not those of
`tf.keras`, so `tf.keras` is the right one there even if `tf_keras` is present.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from estimator_tl.compat.versions import has_native_estimator, load_tensorflow


@functools.cache
def load_keras2() -> Any:
    """Returns the Keras 2 API, whatever `tf.keras` is by now.

    Raises:
      ImportError: tf_keras is needed and absent.
    """
    tf = load_tensorflow()
    if has_native_estimator():
        _ = tf.keras.layers  # `tf.keras` is a lazy loader until its first use, and another object after it
        return tf.keras
    from estimator_tl.compat import estimator_package

    estimator_package.install()  # `keras.estimator.model_to_estimator` imports it on its own
    return _import_tf_keras("tf_keras.api._v2.keras")


def _import_tf_keras(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"Keras 2 is not importable on this TensorFlow ({error}); {keras2_remedy()}.") from error


def keras2_remedy() -> str:
    """Says how to get the Keras 2 that belongs to this TensorFlow."""
    return f"pip install 'tf_keras~={load_tensorflow().__version__.partition('-')[0]}' (TensorFlow's own minor version)"


def rebuilding_objects() -> dict[str, Any]:
    """Returns the custom objects under which a Keras model is to be rebuilt from its configuration.

    In a program that turned v2 behavior off, Keras would take its old batch
    norm, which uses batch statistics in training even where it is frozen.
    """
    tf = load_tensorflow()
    if tf.__internal__.tf2.enabled():
        return {}
    return {"BatchNormalization": load_keras2().layers.BatchNormalization}


@contextlib.contextmanager
def loading_code(allowed: bool) -> Iterator[None]:
    """Lets Keras build Lambda layers, which hold Python code, in its body, if that is allowed."""
    if not allowed:
        yield
        return
    name = load_keras2().Model.__module__.partition(".src.")[0]
    library = importlib.import_module(f"{name}.src.saving.serialization_lib")
    with library.SafeModeScope(False):
        yield


class _Overlay(ModuleType):
    """A module seen through a few replaced attributes; the module itself is untouched."""

    def __init__(self, wrapped: ModuleType, replaced: dict[str, Any]):
        super().__init__(wrapped.__name__, wrapped.__doc__)
        self.__dict__["_wrapped"] = wrapped
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_wrapped"], name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(self.__dict__["_wrapped"]), *self.__dict__})


@functools.cache
def tensorflow_with_keras2() -> Any:
    """Returns `tensorflow` as the Estimator package must see it: with Keras 2 inside.

    Estimator's canned models, heads and metrics are Keras 2 code. Giving them
    this view, and only them, leaves the program's own `tf.keras` what it was.
    """
    tf = load_tensorflow()
    if has_native_estimator():
        return tf
    v1_keras = _import_tf_keras("tf_keras.api._v1.keras")
    v1 = _Overlay(
        tf.compat.v1,
        {"keras": v1_keras, "layers": _import_tf_keras("tf_keras.api._v1.keras.__internal__.legacy.layers")},
    )
    v2 = _Overlay(tf.compat.v2, {"keras": load_keras2()})
    compat = _Overlay(tf.compat, {"v1": v1, "v2": v2})
    return _Overlay(tf, {"keras": load_keras2(), "compat": compat})
