"""Keras 2 on every TensorFlow.

Up to TensorFlow 2.15, `tf.keras` is Keras 2. From 2.16 on, `tf.keras` is Keras 3
unless TF_USE_LEGACY_KERAS was set before its first use, and Keras 2 is in the
package `tf_keras`. On 2.15, `tf_keras` and `tf.keras` have different classes, so
this module uses `tf.keras` there even if `tf_keras` is installed.
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
    """Returns the Keras 2 API, whichever Keras `tf.keras` is.

    Raises:
      ImportError: this TensorFlow needs tf_keras, and tf_keras is not installed.
    """
    tf = load_tensorflow()
    if has_native_estimator():
        _ = tf.keras.layers  # `tf.keras` is a lazy loader until its first use, and then becomes another object
        return tf.keras
    return import_tf_keras("tf_keras.api._v2.keras")


def import_tf_keras(name: str) -> ModuleType:
    """Imports a module of tf_keras.

    Raises:
      ImportError: tf_keras is not installed, or does not fit this TensorFlow.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"Keras 2 is not importable on this TensorFlow ({error}); {keras2_remedy()}.") from error


def let_tf_keras_be_keras2() -> None:
    """Makes `tf.keras` and `tf.compat.v1.layers` Keras 2 in this process, as with TensorFlow 2.15.

    This is for commands, which run code of users in the same process. It must be called before TensorFlow is imported,
    because TensorFlow decides then; a later call has no effect. A value of TF_USE_LEGACY_KERAS in the environment wins.
    The package `keras` stays Keras 3.
    """
    if "tensorflow" not in sys.modules and not native_estimator_is_installed():
        os.environ.setdefault(_SWITCH, "1")


def keras2_advice() -> str:
    """Returns advice on how the code of a user gets Keras 2 in this process."""
    keras = load_keras2()
    layer = getattr(getattr(load_tensorflow().keras, "layers", None), "Layer", None)
    if layer is keras.layers.Layer:
        return "use the layers of estimator_tl.keras, or of tf.keras, which is Keras 2 here"
    return f"set {_SWITCH}=1 before TensorFlow is imported, or use the layers of estimator_tl.keras (Keras 2)"


def keras2_advice_for(error: BaseException) -> str:
    """Returns `keras2_advice` for an error that comes from a lack of Keras 2; an empty string for other errors."""
    text = str(error)
    if "not available with Keras 3" in text or "keras._tf_keras" in text:
        return keras2_advice()
    return ""


def is_of_another_keras(thing: Any) -> bool:
    """True for a class with a base class from a Keras other than the Keras 2 of this process."""
    others = {"keras", "tf_keras"} - {_package()}
    return any(base.__module__.partition(".")[0] in others for base in getattr(thing, "__mro__", ()))


def keras2_remedy() -> str:
    """Returns the command that installs the Keras 2 for this TensorFlow."""
    return f"pip install 'tf_keras~={load_tensorflow().__version__.partition('-')[0]}' (TensorFlow's own minor version)"


def keras2_version() -> str:
    """Returns the version of the Keras 2 of this process."""
    return str(importlib.import_module(_package()).__version__)


@contextlib.contextmanager
def rebuilding(custom_objects: Mapping[str, Any], allow_code: bool = False) -> Iterator[None]:
    """A block in which Keras rebuilds a model exactly as it was saved, from its file or its configuration.

    In a program that turned v2 behavior off, Keras would use its old batch
    norm, which uses batch statistics in training even if it is frozen.

    Args:
      custom_objects: classes and functions by their names in the configuration.
      allow_code: whether Lambda layers, which hold Python code, may be built.
    """
    keras = load_keras2()
    objects = dict(custom_objects)
    if not load_tensorflow().__internal__.tf2.enabled():
        objects.setdefault("BatchNormalization", keras.layers.BatchNormalization)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_own_classes_by_name())
        stack.enter_context(keras.utils.custom_object_scope(objects))
        if allow_code:
            stack.enter_context(_serialization().SafeModeScope(False))
        yield


def sharing_objects() -> contextlib.AbstractContextManager[Any]:
    """Returns a block in which a layer that a saved model uses in several places is deserialized as one layer."""
    scope: contextlib.AbstractContextManager[Any] = _serialization().ObjectSharingScope()
    return scope


def keras_metadata(folder: str) -> list[tuple[str, Any]]:
    """Returns the type and the configuration of each Keras object of a Keras SavedModel.

    This leaves damaged entries out; Keras itself fails when it reads them.
    """
    configs = []
    for node in _metadata(folder).nodes:
        with contextlib.suppress(ValueError):
            configs.append((node.identifier, json.loads(node.metadata)))
    return configs


def rewrite_keras_metadata(folder: str, target: str, change: Callable[[Any], Any]) -> None:
    """Writes the Keras objects of a Keras SavedModel to another folder, with changed configurations.

    Args:
      folder: the folder of the SavedModel.
      target: the folder to write to.
      change: returns the new configuration for the configuration of an object.
    """
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
    """A block in which Keras's initializers draw the same values each time, in this thread only."""
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
def _own_classes_by_name() -> Iterator[None]:
    """A block in which Keras finds its classes by name, even if another Keras 2 has registered the same names.

    TensorFlow 2.15's Keras and tf_keras register their classes in the same
    table, and the later import wins. A configuration would then become layers of
    the other package, and Keras would search for their inputs without end.
    """
    others = {"keras", "tf_keras"} - {_package()}
    table = _exported_symbols()
    foreign = {name: symbol for name, symbol in table.items() if _package_of(symbol) in others}
    table.update({name: _counterpart(symbol) for name, symbol in foreign.items()})
    try:
        yield
    finally:
        table.update(foreign)


def _exported_symbols() -> dict[str, Any]:
    load_tensorflow()
    table: dict[str, Any] = importlib.import_module("tensorflow.python.util.tf_export")._NAME_TO_SYMBOL_MAPPING
    return table


def _package_of(symbol: Any) -> str:
    return str(getattr(symbol, "__module__", None)).partition(".")[0]


def _counterpart(symbol: Any) -> Any:
    """Returns the symbol of this Keras with the name of another Keras's symbol; if there is none, the other symbol."""
    module = sys.modules.get(f"{_package()}.{symbol.__module__.partition('.')[2]}")
    return getattr(module, getattr(symbol, "__qualname__", ""), symbol)
