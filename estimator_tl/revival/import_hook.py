"""Puts Estimator back when a program imports TensorFlow, and not before.

So the program can still set environment variables that TensorFlow reads at its
import, and a process that never uses TensorFlow pays nothing.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from estimator_tl.revival import missing_modules


def install() -> None:
    """Prepares this process for a program that was written for TensorFlow 2.15: Estimator, and Keras 2 as `keras`."""
    missing_modules.let_keras_be_keras2()
    sys.meta_path.insert(0, _TensorFlowFinder())


class _TensorFlowFinder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("tensorflow")
        if spec is not None and spec.loader is not None:
            spec.loader = _EnablingLoader(spec.loader)
        return spec


class _EnablingLoader(importlib.abc.Loader):
    """Loads TensorFlow, puts Estimator back, and removes itself from the module."""

    def __init__(self, loader: Any):
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        from estimator_tl.revival.api import enable_estimator

        enable_estimator()
