"""The Estimator API: TensorFlow's own up to 2.15, brought back from 2.16 on.

TensorFlow 2.16 removed `tf.estimator`, and the package `tensorflow-estimator`
2.15.0, which holds its code, no longer imports: five things that it takes from
TensorFlow are gone. `standins` has one module for each; they are registered
only where TensorFlow lacks the real thing.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from estimator_tl.compat.keras2 import tensorflow_with_keras2
from estimator_tl.compat.quiet import silence_deprecations
from estimator_tl.compat.versions import has_native_estimator, load_tensorflow

_PACKAGE = "tensorflow_estimator"
# TensorFlow module -> module of this project that stands in for it.
_STANDINS = {
    "tensorflow.python.distribute.estimator_training": "estimator_training",
    "tensorflow.python.tpu.tpu_embedding": "tpu_embedding",
    "tensorflow.python.tpu.tpu_embedding_gradient": "tpu_embedding_gradient",
    "tensorflow.python.tpu.session_support": "session_support",
}


@functools.cache
def load_estimator() -> Any:
    """Returns the whole v2 Estimator API (`tf.estimator` as of TensorFlow 2.15).

    Raises:
      ImportError: TensorFlow or tensorflow-estimator is absent or too old.
    """
    tf = load_tensorflow()
    silence_deprecations()
    if has_native_estimator():
        return tf.estimator
    _install_standins()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return importlib.import_module(f"{_PACKAGE}._api.v2.estimator")
        except ImportError as error:
            raise ImportError(
                f"the Estimator API could not be brought back ({error}); pip install 'tensorflow-estimator==2.15.0'."
            ) from error


def _install_standins() -> None:
    from estimator_tl.compat.standins import tf_export

    tf_export.add_estimator_api_name()
    for real, standin in _STANDINS.items():
        if real not in sys.modules and importlib.util.find_spec(real) is None:
            sys.modules[real] = importlib.import_module(f"estimator_tl.compat.standins.{standin}")
    if not any(isinstance(finder, _EstimatorFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _EstimatorFinder())


class _EstimatorFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of tensorflow_estimator as usual, to be loaded with Keras 2 in `tf.keras`."""

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
    """Runs a module so that its `import tensorflow as tf` gives the view with Keras 2.

    Python looks `__import__` up in the module's own `__builtins__`, so nothing
    outside the module notices.
    """

    def __init__(self, loader: Any):
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import_with_keras2}
        self._loader.exec_module(module)

    def __getattr__(self, name: str) -> Any:  # is_package, get_source, ... for tools such as inspect
        return getattr(self._loader, name)


def _import_with_keras2(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    if name == "tensorflow" and not fromlist and level == 0:
        return tensorflow_with_keras2()
    return builtins.__import__(name, globals, locals, fromlist, level)
