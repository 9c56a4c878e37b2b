"""An import finder for modules that Estimator programs import and TensorFlow 2.16 and later no longer has.

There are two sorts. *Stand-ins* are files of this project (one for each module,
in `standins`), loaded under the name of the missing module. *Aliases* are names
that TensorFlow had for modules of the Estimator package. Python asks this finder
last, so a TensorFlow that has the real module uses the real one.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

# TensorFlow module -> file in `standins`.
STANDINS = {
    "tensorflow.python.distribute.estimator_training": "estimator_training",
    "tensorflow.python.tpu.tpu_embedding": "tpu_embedding",
    "tensorflow.python.tpu.tpu_embedding_gradient": "tpu_embedding_gradient",
    "tensorflow.python.tpu.session_support": "session_support",
}
# Prefix in TensorFlow -> prefix in the Estimator package. TensorFlow 2.15 warned that "importing from
# tensorflow.python.estimator is unsupported", but programs do it.
_PACKAGE = "tensorflow_estimator.python.estimator"
_ALIASES = {
    "tensorflow.estimator": f"{_PACKAGE}.api._v2.estimator",
    "tensorflow.compat.v1.estimator": f"{_PACKAGE}.api._v1.estimator",
    "tensorflow.compat.v2.estimator": f"{_PACKAGE}.api._v2.estimator",
    "tensorflow.python.estimator.keras": f"{_PACKAGE}.keras_lib",
    "tensorflow.python.estimator": _PACKAGE,
    **{
        f"tensorflow.python.tpu.{name}": f"{_PACKAGE}.tpu.{name}"
        for name in ("error_handling", "tpu_config", "tpu_context", "tpu_estimator", "util")
    },
}


_MACHINERY = {f"__{name}__" for name in ("name", "loader", "package", "spec", "path", "file", "cached", "builtins")}


def install() -> None:
    """Makes the missing modules importable in this process; a second call does nothing."""
    if not any(isinstance(finder, _MissingModules) for finder in sys.meta_path):
        sys.meta_path.append(_MissingModules())


def let_keras_be_keras2() -> None:
    """Makes `import keras` import Keras 2 (tf_keras) in this process, as with TensorFlow 2.15."""
    sys.meta_path.insert(0, _Keras2AsKeras())


class _MissingModules(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in STANDINS:
            file = Path(__file__).parent / "standins" / f"{STANDINS[fullname]}.py"
            return importlib.util.spec_from_file_location(fullname, file)
        return _alias(fullname, _ALIASES)


class _Keras2AsKeras(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return _alias(fullname, {"keras": "tf_keras"})


def _alias(name: str, aliases: Mapping[str, str]) -> importlib.machinery.ModuleSpec | None:
    """Returns the module spec for a name that is an alias of another module; otherwise None."""
    for alias, prefix in aliases.items():
        if name == alias or name.startswith(f"{alias}."):
            real = prefix + name[len(alias) :]
            break
    else:
        return None
    spec = importlib.util.find_spec(real)
    if spec is None:
        return None
    is_package = spec.submodule_search_locations is not None
    return importlib.machinery.ModuleSpec(name, _AliasLoader(real), is_package=is_package)


class _AliasLoader(importlib.abc.Loader):
    """Copies the names of another module into a module, as TensorFlow's aliases did."""

    def __init__(self, real: str):
        self._real = real

    def exec_module(self, module: ModuleType) -> None:
        names = vars(importlib.import_module(self._real))
        module.__dict__.update({name: value for name, value in names.items() if name not in _MACHINERY})
