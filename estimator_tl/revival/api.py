"""The Estimator API: TensorFlow's own up to 2.15, brought back from 2.16 on.

TensorFlow 2.16 removed `tf.estimator`. The package `tensorflow-estimator` 2.15.0
contains its code, but no longer imports, because TensorFlow has removed a few
modules that it needs. `missing_modules` provides these modules, and `package`
loads the package.
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
    """Returns the v2 Estimator API (`tf.estimator` as of TensorFlow 2.15), without its deprecation notices.

    Raises:
      ImportError: TensorFlow or tensorflow-estimator is not installed or too old.
    """
    silence_deprecations()
    return _api("v2")


def load_v1_estimator() -> Any:
    """Returns the v1 Estimator API (`tf.compat.v1.estimator`); its module `tpu` contains TPUEstimator."""
    silence_deprecations()
    return _api("v1")


def enable_estimator() -> Any:
    """Puts the Estimator API back into TensorFlow, for existing code.

    Afterwards `tf.estimator`, `tf.compat.v1.estimator` (with `.tpu`) and
    `tf.compat.v2.estimator` are the same as in TensorFlow 2.15, and
    `tensorflow_estimator` and `tensorflow.estimator` can be imported. A second
    call changes nothing, and neither does a call on TensorFlow 2.15. `tf.keras`
    does not change; if the code needs Keras 2 there, set TF_USE_LEGACY_KERAS=1
    before TensorFlow is imported.

    Returns:
      The v2 API, the same object as `tf.estimator`.

    Raises:
      ImportError: TensorFlow or tensorflow-estimator is not installed or too old.
    """
    tf = load_tensorflow()
    v2 = _api("v2")
    if has_native_estimator():
        return v2
    v1 = _api("v1")
    tf.estimator = v2
    for root in ("tensorflow._api.v2", "tensorflow"):  # `import tensorflow.compat.v1` creates separate modules
        importlib.import_module(f"{root}.compat.v2").estimator = v2  # type: ignore[attr-defined]
        importlib.import_module(f"{root}.compat.v1").estimator = v1  # type: ignore[attr-defined]
    for prefix, api in (("", v2), ("compat.v2.", v2), ("compat.v1.", v1)):
        sys.modules[f"tensorflow.{prefix}estimator"] = api
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

    TensorFlow 2.15 does the same, and for a reason: Keras 2 chooses its layers
    when it is imported, so a program must be able to call
    `disable_v2_behavior()` before that.
    """

    def __init__(self, version: str):
        super().__init__(estimator_package.api_name(version), "The Estimator API of TensorFlow 2.15.")
        self.__dict__["__path__"] = []  # `import tensorflow.estimator.export` asks for it
        self.__dict__["_version"] = version

    def _load(self) -> ModuleType:
        return estimator_package.import_api(self.__dict__["_version"])

    def __getattr__(self, name: str) -> Any:
        if (
            name.startswith("__") and name != "__file__"
        ):  # tools read these of every module: no reason to import the API
            raise AttributeError(name)
        value = getattr(self._load(), name)
        self.__dict__[name] = value
        return value

    def __dir__(self) -> list[str]:
        return dir(self._load())
