"""The Estimator API: TensorFlow's own up to 2.15, brought back from 2.16 on.

TensorFlow 2.16 removed `tf.estimator`, and the package `tensorflow-estimator`
2.15.0, which holds its code, no longer imports: a few modules that it takes from
TensorFlow are gone. `missing_modules` provides them, `estimator_package` loads
the package.
"""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

from estimator_tl.compat.quiet import silence_deprecations
from estimator_tl.compat.versions import has_native_estimator, load_tensorflow
from estimator_tl.revival import package as estimator_package


def load_estimator() -> Any:
    """Returns the whole v2 Estimator API (`tf.estimator` as of TensorFlow 2.15), without its deprecation notices.

    Raises:
      ImportError: TensorFlow or tensorflow-estimator is absent or too old.
    """
    silence_deprecations()
    return _api("v2")


def load_v1_estimator() -> Any:
    """Returns the v1 Estimator API (`tf.compat.v1.estimator`), which has TPUEstimator in its module `tpu`."""
    silence_deprecations()
    return _api("v1")


def enable_estimator() -> Any:
    """Puts the Estimator API back into TensorFlow, for code that already exists.

    Afterwards `tf.estimator`, `tf.compat.v1.estimator` (with `.tpu`) and
    `tf.compat.v2.estimator` are what they were in TensorFlow 2.15, and
    `tensorflow_estimator` and `tensorflow.estimator` can be imported. Calling
    it again changes nothing, and neither does calling it on TensorFlow 2.15.
    `tf.keras` stays what it is; where the code needs Keras 2 there, set
    TF_USE_LEGACY_KERAS=1 before TensorFlow is imported.

    Returns:
      The v2 API, as `tf.estimator`.

    Raises:
      ImportError: TensorFlow or tensorflow-estimator is absent or too old.
    """
    tf = load_tensorflow()
    v2 = _api("v2")
    if has_native_estimator():
        return v2
    v1 = _api("v1")
    tf.estimator = v2
    for root in ("tensorflow._api.v2", "tensorflow"):  # `import tensorflow.compat.v1` makes modules of its own
        importlib.import_module(f"{root}.compat.v2").estimator = v2  # type: ignore[attr-defined]
        importlib.import_module(f"{root}.compat.v1").estimator = v1  # type: ignore[attr-defined]
    for place, api in (("", v2), ("compat.v2.", v2), ("compat.v1.", v1)):
        sys.modules[f"tensorflow.{place}estimator"] = api
    from estimator_tl.revival.standins import checkpoint_input_pipeline_hook

    checkpoint_input_pipeline_hook.put_back()
    return v2


@functools.cache
def _api(version: str) -> Any:
    tf = load_tensorflow()
    if has_native_estimator():
        return tf.estimator if version == "v2" else tf.compat.v1.estimator
    estimator_package.install()
    return _LazyApi(version)


class _LazyApi(ModuleType):
    """The API, imported at its first use.

    TensorFlow 2.15 does the same, and it matters: Keras 2 decides when it is
    imported which layers it has, so a program must have the time to call
    `disable_v2_behavior()` first.
    """

    def __init__(self, version: str):
        super().__init__(estimator_package.api_name(version), "The Estimator API of TensorFlow 2.15.")
        self.__dict__["__path__"] = []  # `import tensorflow.estimator.export` asks for it
        self.__dict__["_version"] = version

    def _load(self) -> ModuleType:
        return estimator_package.import_api(self.__dict__["_version"])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__file__":  # asked of every module, and no reason to import this one
            raise AttributeError(name)
        value = getattr(self._load(), name)
        self.__dict__[name] = value
        return value

    def __dir__(self) -> list[str]:
        return dir(self._load())
