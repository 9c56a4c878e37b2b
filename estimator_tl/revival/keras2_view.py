"""A view of TensorFlow for the package tensorflow-estimator, with Keras 2 inside."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from estimator_tl.compat.keras2 import import_tf_keras, load_keras2
from estimator_tl.compat.versions import has_native_estimator, load_tensorflow


class _Overlay(ModuleType):
    """A view of a module with a few other attributes; the module itself does not change."""

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
    """Returns `tensorflow` with Keras 2 inside.

    Estimator's canned models, heads and metrics are Keras 2 code. Only they get
    this view, so the `tf.keras` of the program does not change.
    """
    tf = load_tensorflow()
    if has_native_estimator():
        return tf
    v1_keras = import_tf_keras("tf_keras.api._v1.keras")
    v1 = _Overlay(
        tf.compat.v1,
        {"keras": v1_keras, "layers": import_tf_keras("tf_keras.api._v1.keras.__internal__.legacy.layers")},
    )
    v2 = _Overlay(tf.compat.v2, {"keras": load_keras2()})
    compat = _Overlay(tf.compat, {"v1": v1, "v2": v2})
    return _Overlay(tf, {"keras": load_keras2(), "compat": compat})
