"""Functions and classes of users, named as ``pkg.module:NAME`` or ``path/file.py:NAME``."""

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
from estimator_tl.compat.keras2 import lack_of_keras2
from estimator_tl.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class UserCode:
    """Objects of a user's module.

    Attributes:
      objects: functions and classes by name.
      file: where the module is written.
      digest: ``sha256:...`` of that file when it was read.
    """

    objects: Mapping[str, Any]
    file: str
    digest: str


def load_code(argument: str, spec: str, what: str) -> UserCode:
    """Finds what ``pkg.module:NAME`` or ``path/file.py:NAME,NAME2`` names.

    Args:
      argument: of which the spec is the value, for messages.
      spec: as the user wrote it.
      what: the spec names, in one word that also stands for a name in examples: function, NAMES.

    Raises:
      UserError: the module or one of the names is not there, or not callable.
    """
    example = f"write {argument}='pkg.module:{what}' or {argument}='path/file.py:{what}'"
    place, _, listed = str(spec).rpartition(":")
    names = [name.strip() for name in listed.split(",")]
    if not place or not all(names):
        raise UserError(f"{argument}={spec!r} names no {what}; {example}.")
    asked = f"{argument}={spec!r}"
    module = _from_file(place, asked) if place.endswith(".py") else _from_package(place, asked, example)
    for name in names:
        if not callable(getattr(module, name, None)):
            public = [
                k for k, v in vars(module).items() if k[0] != "_" and (inspect.isfunction(v) or inspect.isclass(v))
            ]
            thing = "function" if what == "function" else "class or function"
            raise UserError(f"{asked}: no {thing} {name!r} in {place}; {nearest(name, public)}")
    if getattr(module, "__file__", None) is None:
        raise UserError(f"{asked}: {place} is no file of Python code; {example}.")
    file = os.path.abspath(inspect.getsourcefile(module) or str(module.__file__))
    return UserCode({name: getattr(module, name) for name in names}, file, file_digest(file))


def _from_package(name: str, asked: str, example: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a module raises at its import whatever it likes
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        remedy = lack_of_keras2(error) or f"check PYTHONPATH, or {example}"
        raise UserError(f"{asked} cannot be imported ({kind}{error}); {remedy}.") from error


def _from_file(path: str, asked: str) -> ModuleType:
    """Runs a file as a module of its own; it may import its neighbours, as a script may."""
    file = Path(os.path.expanduser(path)).absolute()
    if not file.is_file():
        raise UserError(f"{asked}: there is no file {path}; check the path.")
    name = f"estimator_tl_user_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    found = importlib.util.spec_from_file_location(name, file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))
    try:
        found.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        remedy = lack_of_keras2(error) or "correct it"
        raise UserError(f"{asked}: {file} cannot be run ({type(error).__name__}: {error}); {remedy}.") from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(file.parent))
    return module
