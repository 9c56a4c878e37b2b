"""Loads users' functions and classes, named as ``pkg.module:NAME`` or ``path/file.py:NAME``."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from estimator_tl.backbones.digest import file_digest
from estimator_tl.compat.keras2 import keras2_advice_for
from estimator_tl.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class UserCode:
    """Objects of a user's module.

    Attributes:
      objects: functions and classes by name.
      file: the file of the module.
      digest: ``sha256:...`` of the file at the time when it was read.
    """

    objects: Mapping[str, Any]
    file: str
    digest: str


def load_code(argument: str, spec: str, noun: str) -> UserCode:
    """Loads the objects that ``pkg.module:NAME`` or ``path/file.py:NAME,NAME2`` names.

    Args:
      argument: the argument whose value is the spec, for messages.
      spec: as the user wrote it.
      noun: what the spec names, in one word that messages also use as an example name: function, NAMES.

    Raises:
      UserError: the module or an object does not exist, or an object is not callable.
    """
    example = f"write {argument}='pkg.module:{noun}' or {argument}='path/file.py:{noun}'"
    path, _, name_list = str(spec).rpartition(":")
    names = [name.strip() for name in name_list.split(",")]
    if not path or not all(names):
        raise UserError(f"{argument}={spec!r} names no {noun}; {example}.")
    setting = f"{argument}={spec!r}"
    module = _from_file(path, setting) if path.endswith(".py") else _from_package(path, setting, example)
    for name in names:
        if not callable(getattr(module, name, None)):
            public = [
                k for k, v in vars(module).items() if k[0] != "_" and (inspect.isfunction(v) or inspect.isclass(v))
            ]
            kind = "function" if noun == "function" else "class or function"
            raise UserError(f"{setting}: no {kind} {name!r} in {path}; {nearest(name, public)}")
    if getattr(module, "__file__", None) is None:
        raise UserError(f"{setting}: {path} is not a file of Python code; {example}.")
    file = os.path.abspath(inspect.getsourcefile(module) or str(module.__file__))
    return UserCode({name: getattr(module, name) for name in names}, file, file_digest(file))


def _from_package(name: str, setting: str, example: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # the import of a user's module may raise anything
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        remedy = keras2_advice_for(error) or f"check PYTHONPATH, or {example}"
        raise UserError(f"{setting} cannot be imported ({kind}{error}); {remedy}.") from error


def _from_file(path: str, setting: str) -> ModuleType:
    """Runs a file as a module; as in a script, it can import the files beside it."""
    file = Path(os.path.expanduser(path)).absolute()
    if not file.is_file():
        raise UserError(f"{setting}: there is no file {path}; check the path.")
    name = f"estimator_tl_user_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        remedy = keras2_advice_for(error) or "correct it"
        raise UserError(f"{setting}: {file} cannot be run ({type(error).__name__}: {error}); {remedy}.") from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(file.parent))
    return module
