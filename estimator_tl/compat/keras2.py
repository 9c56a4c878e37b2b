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
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from estimator_tl.compat.versions import has_native_estimator, load_tensorflow, native_estimator_is_installed

_SWITCH = "TF_USE_LEGACY_KERAS"

_METADATA = "keras_metadata.pb"


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
    return import_tf_keras("tf_keras.api._v2.keras")


def import_tf_keras(name: str) -> ModuleType:
    """Imports a module of tf_keras.

    Raises:
      ImportError: tf_keras is absent, or is not of this TensorFlow.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"Keras 2 is not importable on this TensorFlow ({error}); {keras2_remedy()}.") from error


def let_tf_keras_be_keras2() -> None:
    """Makes `tf.keras` and `tf.compat.v1.layers` those of Keras 2 in this process, as with TensorFlow 2.15.

    For the process of a command, where the code of users runs beside this project's: TensorFlow decides when it is
    imported, so this does nothing afterwards, nor where the environment says which Keras it is to be. The package
    `keras` stays Keras 3.
    """
    if "tensorflow" not in sys.modules and not native_estimator_is_installed():
        os.environ.setdefault(_SWITCH, "1")


def use_of_keras2() -> str:
    """Says how the code of a user gets Keras 2 in this process."""
    keras = load_keras2()
    layer = getattr(getattr(load_tensorflow().keras, "layers", None), "Layer", None)
    if layer is keras.layers.Layer:
        return "use the layers of estimator_tl.keras, or of tf.keras, which is Keras 2 here"
    return f"set {_SWITCH}=1 before TensorFlow is imported, or use the layers of estimator_tl.keras (Keras 2)"


def lack_of_keras2(error: BaseException) -> str:
    """Says how code that fails gets Keras 2, where that is what it lacks; empty for other errors."""
    text = str(error)
    is_lacking = "not available with Keras 3" in text or "keras._tf_keras" in text
    return use_of_keras2() if is_lacking else ""


def is_of_another_keras(thing: Any) -> bool:
    """Whether a class is made of the classes of a Keras that is not this process's Keras 2."""
    others = {"keras", "tf_keras"} - {_package()}
    return any(base.__module__.partition(".")[0] in others for base in getattr(thing, "__mro__", ()))


def keras2_remedy() -> str:
    """Says how to get the Keras 2 that belongs to this TensorFlow."""
    return f"pip install 'tf_keras~={load_tensorflow().__version__.partition('-')[0]}' (TensorFlow's own minor version)"


def keras2_version() -> str:
    """Returns the version of the Keras 2 that is in use."""
    return str(importlib.import_module(_package()).__version__)


@contextlib.contextmanager
def rebuilding(custom_objects: Mapping[str, Any], allow_code: bool = False) -> Iterator[None]:
    """Makes a Keras model that is read or rebuilt from its configuration in the body the one that was saved.

    In a program that turned v2 behavior off, Keras would take its old batch
    norm, which uses batch statistics in training even where it is frozen.

    Args:
      custom_objects: classes and functions that the configuration names.
      allow_code: whether Lambda layers, which hold Python code, may be built.
    """
    keras = load_keras2()
    objects = dict(custom_objects)
    if not load_tensorflow().__internal__.tf2.enabled():
        objects.setdefault("BatchNormalization", keras.layers.BatchNormalization)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_own_names())
        stack.enter_context(keras.utils.custom_object_scope(objects))
        if allow_code:
            stack.enter_context(_serialization().SafeModeScope(False))
        yield


def sharing_objects() -> contextlib.AbstractContextManager[Any]:
    """Makes layers that a saved model uses in several places one layer again where it is deserialized in the body."""
    scope: contextlib.AbstractContextManager[Any] = _serialization().ObjectSharingScope()
    return scope


def keras_metadata(folder: str) -> list[tuple[str, Any]]:
    """Returns kind and configuration of each Keras object of a Keras SavedModel.

    What is damaged is left out: Keras fails where it comes to it.
    """
    configs = []
    for node in _metadata(folder).nodes:
        with contextlib.suppress(ValueError):
            configs.append((node.identifier, json.loads(node.metadata)))
    return configs


def rewrite_keras_metadata(folder: str, target: str, change: Callable[[Any], Any]) -> None:
    """Writes the Keras objects of a Keras SavedModel into another folder, each configuration changed."""
    metadata = _metadata(folder)
    for node in metadata.nodes:
        with contextlib.suppress(ValueError):
            node.metadata = json.dumps(change(json.loads(node.metadata)))
    with open(os.path.join(target, _METADATA), "wb") as stream:
        stream.write(metadata.SerializeToString())


def _metadata(folder: str) -> Any:
    from google.protobuf.message import DecodeError

    metadata = importlib.import_module(f"{_package()}.protobuf.saved_metadata_pb2").SavedMetadata()
    with contextlib.suppress(OSError, DecodeError), open(os.path.join(folder, _METADATA), "rb") as stream:
        metadata.ParseFromString(stream.read())
    return metadata


def _serialization() -> ModuleType:
    return importlib.import_module(f"{_package()}.src.saving.serialization_lib")


@contextlib.contextmanager
def same_random_weights() -> Iterator[None]:
    """Lets Keras's initializers draw the same values each time in the body, and in this thread only."""
    backend = importlib.import_module(f"{_package()}.src.backend")
    before = getattr(backend._SEED_GENERATOR, "generator", None)
    backend._SEED_GENERATOR.generator = random.Random(0)
    try:
        yield
    finally:
        backend._SEED_GENERATOR.generator = before


def _package() -> str:
    return str(load_keras2().Model.__module__).partition(".")[0]


@contextlib.contextmanager
def _own_names() -> Iterator[None]:
    """Lets Keras find its own classes by their names in the body, where another Keras 2 has taken the names.

    TensorFlow 2.15's Keras and tf_keras enter their classes into one table;
    the later import wins. A model's configuration then becomes layers of the
    other package, and Keras searches for their inputs without end.
    """
    others = {"keras", "tf_keras"} - {_package()}
    table = _exported_symbols()
    taken = {name: symbol for name, symbol in table.items() if _package_of(symbol) in others}
    table.update({name: _counterpart(symbol) for name, symbol in taken.items()})
    try:
        yield
    finally:
        table.update(taken)


def _exported_symbols() -> dict[str, Any]:
    load_tensorflow()
    table: dict[str, Any] = importlib.import_module("tensorflow.python.util.tf_export")._NAME_TO_SYMBOL_MAPPING
    return table


def _package_of(symbol: Any) -> str:
    return str(getattr(symbol, "__module__", None)).partition(".")[0]


def _counterpart(symbol: Any) -> Any:
    """Returns what this Keras has under the name of another Keras's symbol; that symbol itself if it has nothing."""
    module = sys.modules.get(f"{_package()}.{symbol.__module__.partition('.')[2]}")
    return getattr(module, getattr(symbol, "__qualname__", ""), symbol)
