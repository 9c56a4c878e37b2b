"""Runs an existing program with Estimator put back.

This process becomes a Python process of the program (`exec`), so traceback, exit
status, signals and `__main__` are the same as with `python PROGRAM`. The
environment variable PYTHONPATH gets the folder `startup`, whose `sitecustomize`
Python runs at its start. Processes that the program starts inherit it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from estimator_tl.compat import versions
from estimator_tl.errors import UserError, nearest
from estimator_tl.revival import package as estimator_package

STARTUP = Path(__file__).parent / "startup"


def run_script(path: str, arguments: Sequence[str]) -> int:
    """Becomes ``python PATH ARGUMENTS``.

    Raises:
      UserError: the script does not exist.
      ImportError: a package is not installed or too old.
    """
    file = Path(path)
    if file.is_dir():
        raise UserError(f"legacy: {path} is a folder; name its script, or use -m.")
    if not file.is_file():
        scripts = [str(other) for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        hint = nearest(path, scripts) if scripts else "check the path."
        raise UserError(f"legacy: {path} does not exist; {hint}")
    return _replace_process([path, *arguments])


def run_module(name: str, arguments: Sequence[str]) -> int:
    """Becomes ``python -m NAME ARGUMENTS``.

    Raises:
      UserError: the module does not exist.
      ImportError: a package is not installed or too old.
    """
    sys.path.insert(0, os.getcwd())  # where `python -m` looks first
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise UserError(
            f"legacy: no module named {name!r}; check the name and PYTHONPATH, or give the path of a script."
        )
    return _replace_process(["-m", name, *arguments])


def _replace_process(arguments: Sequence[str]) -> int:
    """Replaces this process by ``python ARGUMENTS``."""
    versions.check_installed()
    environment = dict(os.environ)
    if not versions.native_estimator_is_installed():
        estimator_package.check_installed()
        if sys.flags.ignore_environment or sys.flags.no_site:
            raise UserError("legacy: Python's flags -E, -I and -S keep Estimator from the program; leave them out.")
        # Not on TensorFlow 2.15: there, `tf.keras` would get classes that Estimator does not know.
        environment.setdefault("TF_USE_LEGACY_KERAS", "1")
        environment["ESTIMATOR_TL_PREFIX"] = sys.prefix
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(STARTUP), environment.get("PYTHONPATH")]))
    sys.stdout.flush()
    sys.stderr.flush()
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # -W, -X, ... of this process
    os.execve(sys.executable, [sys.executable, *flags, *arguments], environment)
