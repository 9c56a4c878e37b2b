"""Loads the package tensorflow-estimator on a newer TensorFlow.

Its canned models, heads and metrics are Keras 2 code that uses `tf.keras`, which
is Keras 3 from TensorFlow 2.16 on. Only the modules of the package get a view of
TensorFlow with Keras 2 inside; the `tf.keras` of the program does not change.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from estimator_tl.compat.keras2 import keras2_remedy, load_keras2
from estimator_tl.compat.versions import has_native_estimator
from estimator_tl.revival import missing_modules
from estimator_tl.revival.keras2_view import tensorflow_with_keras2

_PACKAGE = "tensorflow_estimator"
_NEEDED = "2.15.0"
_REMEDY = f"pip install 'tensorflow-estimator=={_NEEDED}'"


def install() -> None:
    """Makes tensorflow_estimator importable in this process; a second call does nothing.

    Raises:
      ImportError: the package or tf_keras is not installed, or the package is too old.
    """
    check_installed()
    from estimator_tl.revival.standins import tf_export

    tf_export.add_estimator_api_name()
    missing_modules.install()
    if not any(isinstance(finder, _EstimatorFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _EstimatorFinder())


def load_keras() -> Any:
    """Returns the Keras 2 API, and makes tensorflow_estimator importable for its `estimator.model_to_estimator`.

    Raises:
      ImportError: the package or tf_keras is not installed, or the package is too old.
    """
    if not has_native_estimator():
        install()
    return load_keras2()


def api_name(version: str) -> str:
    """Returns the name of the module with the API "v1" or "v2", the same module as in TensorFlow 2.15."""
    return f"{_PACKAGE}.python.estimator.api._{version}.estimator"


def import_api(version: str) -> ModuleType:
    """Imports the API "v1" or "v2".

    Raises:
      ImportError: the package does not import on this TensorFlow.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)  # invalid escapes in its docstrings, from Python 3.12 on
        try:
            return importlib.import_module(api_name(version))
        except ImportError as error:
            raise ImportError(f"the Estimator API could not be brought back ({error}); {_REMEDY}.") from error


def check_installed() -> None:
    """Checks, without importing them, that the packages are installed.

    Raises:
      ImportError: the package or tf_keras is not installed, or the package is too old.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise ImportError(f"tensorflow-estimator is not installed; {_REMEDY}.")
    if importlib.util.find_spec("tf_keras") is None:
        raise ImportError(f"tf_keras is not installed; {keras2_remedy()}.")
    try:
        version = importlib.metadata.version("tensorflow-estimator")
    except importlib.metadata.PackageNotFoundError:
        return  # a nightly or vendored build: its import shows whether it works
    if tuple(map(int, version.split(".")[:2])) < tuple(map(int, _NEEDED.split(".")[:2])):
        raise ImportError(f"tensorflow-estimator {version} is too old for this TensorFlow; {_REMEDY}.")


class _EstimatorFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of tensorflow_estimator as usual, and has them loaded by `_Keras2Loader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != _PACKAGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Keras2Loader(spec.loader)
        return spec


class _Keras2Loader(importlib.abc.Loader):
    """Runs a module so that its `import tensorflow as tf` imports the view with Keras 2.

    Python looks up `__import__` in the `__builtins__` of the module, so no other
    module is affected.
    """

    def __init__(self, loader: Any):
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import_with_keras2}
        self._loader.exec_module(module)
        if module.__name__ == f"{_PACKAGE}.python.estimator.keras_lib":
            module.__dict__["model_to_estimator"] = _rejecting_keras3(module.__dict__["model_to_estimator"])

    def __getattr__(self, name: str) -> Any:  # is_package, get_source, ... for tools such as inspect
        return getattr(self._loader, name)


def _import_with_keras2(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    if name == "tensorflow" and not fromlist and level == 0:
        return tensorflow_with_keras2()
    return builtins.__import__(name, globals, locals, fromlist, level)


def _rejecting_keras3(model_to_estimator: Any) -> Any:
    """Wraps `model_to_estimator` to reject a Keras 3 model, on which it would fail with an obscure error."""

    @functools.wraps(model_to_estimator)
    def checked(keras_model: Any = None, *args: Any, **kwargs: Any) -> Any:
        cls = type(keras_model)
        is_keras = any(base.__module__.partition(".")[0] == "keras" for base in cls.__mro__)
        if is_keras and not isinstance(keras_model, load_keras2().Model):
            raise ValueError(
                f"model_to_estimator takes Keras 2 models, and {cls.__module__}.{cls.__name__} is a Keras 3 one; "
                "build it with the layers of etl.keras (tf_keras), or run the program with `estimator-tl legacy`, "
                "where tf.keras is Keras 2."
            )
        return model_to_estimator(keras_model, *args, **kwargs)

    return checked
