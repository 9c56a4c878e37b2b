"""Runs a program that already exists as Python itself would, with Estimator put back first."""

from __future__ import annotations

import builtins
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from estimator_tl.compat import missing_modules
from estimator_tl.errors import UserError, nearest

_SIGINT_STATUS = 130  # what a shell reports for a program stopped by Ctrl-C


def run_script(path: str, arguments: Sequence[str]) -> int:
    """Runs ``python PATH ARGUMENTS`` and returns its exit status; see `_run`.

    Raises:
      UserError: there is no such script.
    """
    file = Path(path)
    if not file.is_file():
        near = [str(other) for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        hint = "name its script, or use -m." if file.is_dir() else nearest(path, near) if near else "check the path."
        raise UserError(f"legacy: {path} is {'a folder' if file.is_dir() else 'not there'}; {hint}")
    _prepare()
    _set_path(str(file.resolve().parent))

    def load(main: ModuleType) -> CodeType:
        main.__dict__["__file__"] = path
        return compile(file.read_bytes(), path, "exec")

    return _run(load, path, arguments)


def run_module(name: str, arguments: Sequence[str]) -> int:
    """Runs ``python -m NAME ARGUMENTS`` and returns its exit status; see `_run`.

    Raises:
      UserError: there is no such module.
    """
    _prepare()
    _set_path(os.getcwd())

    def load(main: ModuleType) -> CodeType:
        spec = _find_module(name)
        main.__dict__.update(__file__=spec.origin, __spec__=spec, __package__=spec.parent, __loader__=spec.loader)
        sys.argv[0] = spec.origin
        code: CodeType = spec.loader.get_code(spec.name)
        return code

    return _run(load, "-m", arguments)


def _find_module(name: str) -> Any:
    missing = f"legacy: no module named {name!r}; check the name and PYTHONPATH, or name the script's path."
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            missing = f"legacy: the package has no {name!r}; name the module inside it that is to run."
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        spec = None
    if spec is None:
        raise UserError(missing)
    return spec


def _prepare() -> None:
    """Makes TensorFlow what the program would find on 2.15: with Estimator, and `tf.keras` and `keras` as Keras 2."""
    tensorflow = importlib.util.find_spec("tensorflow")
    folders = (tensorflow.submodule_search_locations if tensorflow else None) or []
    native = any((Path(folder) / "python/distribute/estimator_training.py").is_file() for folder in folders)
    if not native:  # on TensorFlow 2.15 the variable would take Keras 2 away from the classes that Estimator knows
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
        missing_modules.let_keras_be_keras2()
    from estimator_tl.compat.estimator_api import enable_estimator

    enable_estimator()


def _set_path(folder: str) -> None:
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = folder


def _run(load: Callable[[ModuleType], CodeType], argv0: str, arguments: Sequence[str]) -> int:
    """Runs a program as `__main__`.

    The module stays in place afterwards, for what runs at exit. An exception is
    shown by the interpreter's own hook, without this project's frames.

    Args:
      load: fills in the module's attributes and returns its code.
      argv0: first element of `sys.argv`.
      arguments: the others.

    Returns:
      0, or the exit status of an uncaught exception. A SystemExit passes through.
    """
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    sys.argv[:] = [argv0, *arguments]
    try:
        exec(load(main), main.__dict__)
    except (SystemExit, UserError):
        raise
    except BaseException as error:
        error.__traceback__ = _program_part(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return _SIGINT_STATUS if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _program_part(trace: TracebackType | None) -> TracebackType | None:
    """Drops the leading frames of this module and of Python's import machinery."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith((__file__, "<frozen importlib")):
        trace = trace.tb_next
    return trace
