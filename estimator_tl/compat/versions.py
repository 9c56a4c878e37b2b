"""Which TensorFlow is here, and whether it is one that this project knows."""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from typing import Any

OLDEST = (2, 15)
NEWEST_TESTED = (2, 21)


def tensorflow_version() -> tuple[int, int]:
    """Returns (major, minor) of the imported TensorFlow."""
    import tensorflow

    major, minor = tensorflow.__version__.split(".")[:2]
    return int(major), int(minor)


def has_native_estimator() -> bool:
    """True where TensorFlow itself still carries `tf.estimator` (up to 2.15)."""
    return tensorflow_version() < (2, 16)


@functools.cache
def load_tensorflow() -> Any:
    """Imports TensorFlow and checks its version.

    Raises:
      ImportError: TensorFlow is absent or older than 2.15.
    """
    try:
        import tensorflow
    except ImportError as error:
        raise ImportError(f"TensorFlow is not importable ({error}); pip install 'tensorflow>=2.15,<2.22'.") from error
    version = tensorflow_version()
    if version < OLDEST:
        raise ImportError(
            f"TensorFlow {tensorflow.__version__} is too old for estimator_tl; pip install 'tensorflow>=2.15,<2.22'."
        )
    if version > NEWEST_TESTED:
        warnings.warn(
            f"TensorFlow {tensorflow.__version__} is newer than the newest tested with estimator_tl "
            f"({NEWEST_TESTED[0]}.{NEWEST_TESTED[1]}); if something breaks, pip install 'tensorflow<2.22'.",
            stacklevel=2,
        )
    return tensorflow


@functools.cache
def load_hub() -> Any:
    """Imports tensorflow_hub, without the warning of its use of pkg_resources."""
    load_tensorflow()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pkg_resources.*")
        import tensorflow_hub
    return tensorflow_hub


def installed_versions() -> dict[str, str]:
    """Returns the versions of the packages that decide what a run does."""
    names = ("tensorflow", "tensorflow-cpu", "tensorflow-estimator", "tf_keras", "tensorflow-hub", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
