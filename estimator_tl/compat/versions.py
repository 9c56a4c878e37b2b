"""The installed version of TensorFlow, and whether this project supports it."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import warnings
from pathlib import Path
from typing import Any

OLDEST = (2, 15)
NEWEST_TESTED = (2, 21)
_REMEDY = "pip install 'tensorflow>=2.15,<2.22'"
_HUB_WITHOUT_ESTIMATOR = (0, 16)
_PACKAGES = ("tensorflow", "tensorflow-cpu")


def tensorflow_version() -> tuple[int, int]:
    """Returns (major, minor) of the imported TensorFlow."""
    import tensorflow

    major, minor = tensorflow.__version__.split(".")[:2]
    return int(major), int(minor)


def has_native_estimator() -> bool:
    """True if TensorFlow itself contains `tf.estimator` (up to 2.15)."""
    return tensorflow_version() < (2, 16)


def native_estimator_is_installed() -> bool:
    """Returns the same as `has_native_estimator`, without importing TensorFlow; False if it is not installed."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None:
        return False
    folders = spec.submodule_search_locations or ()
    return any((Path(folder) / "python/distribute/estimator_training.py").is_file() for folder in folders)


def check_installed() -> None:
    """Checks the version of TensorFlow by the metadata of its package, without importing it.

    Raises:
      ImportError: TensorFlow is not installed or is older than 2.15.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(f"TensorFlow is not installed; {_REMEDY}.")
    version = next((installed_versions()[name] for name in _PACKAGES if name in installed_versions()), None)
    if version and tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise ImportError(f"TensorFlow {version} is too old for estimator_tl; {_REMEDY}.")


@functools.cache
def load_tensorflow() -> Any:
    """Imports TensorFlow and checks its version.

    Raises:
      ImportError: TensorFlow is not installed or is older than 2.15.
    """
    try:
        import tensorflow
    except ImportError as error:
        raise ImportError(f"TensorFlow is not importable ({error}); {_REMEDY}.") from error
    version = tensorflow_version()
    if version < OLDEST:
        raise ImportError(f"TensorFlow {tensorflow.__version__} is too old for estimator_tl; {_REMEDY}.")
    if version > NEWEST_TESTED:
        warnings.warn(
            f"TensorFlow {tensorflow.__version__} is newer than the newest tested with estimator_tl "
            f"({NEWEST_TESTED[0]}.{NEWEST_TESTED[1]}); if something breaks, pip install 'tensorflow<2.22'.",
            stacklevel=2,
        )
    return tensorflow


def hub_problem() -> str | None:
    """Returns why the installed tensorflow-hub does not import on this TensorFlow; None if it imports."""
    hub = installed_versions().get("tensorflow-hub")
    if hub is None or has_native_estimator() or tuple(map(int, hub.split(".")[:2])) >= _HUB_WITHOUT_ESTIMATOR:
        return None
    major, minor = tensorflow_version()
    return (
        f"tensorflow-hub {hub} needs the Estimator that TensorFlow {major}.{minor} lacks; pip install "
        "'tensorflow-hub>=0.16.1', or name modules by their folders, which need no tensorflow-hub"
    )


@functools.cache
def load_hub() -> Any:
    """Imports tensorflow_hub, without the warning about its use of pkg_resources.

    Raises:
      ImportError: tensorflow_hub is not installed or too old for this TensorFlow.
    """
    load_tensorflow()
    problem = hub_problem()
    if problem:
        raise ImportError(f"{problem}.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pkg_resources.*")
        import tensorflow_hub
    return tensorflow_hub


def installed_versions() -> dict[str, str]:
    """Returns the versions of the installed packages that affect the results of a run, by package."""
    names = (*_PACKAGES, "tensorflow-estimator", "tf_keras", "tensorflow-hub", "numpy")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
