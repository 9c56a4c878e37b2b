"""The single entry point to TensorFlow, from 2.15 (the last version with Estimator) to the newest.

`tf`, `keras` (Keras 2 on every version), `estimator` and `hub` are loaded on
first use, so importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    tf: Any
    keras: Any
    estimator: Any
    hub: Any


# Name -> (module, function that loads it). Strings instead of imports, because `revival` imports this package.
_LOADERS = {
    "tf": ("estimator_tl.compat.versions", "load_tensorflow"),
    "keras": ("estimator_tl.revival.package", "load_keras"),
    "estimator": ("estimator_tl.revival.api", "load_estimator"),
    "hub": ("estimator_tl.compat.versions", "load_hub"),
}


def __getattr__(name: str) -> Any:
    if name not in _LOADERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, function = _LOADERS[name]
    value = getattr(importlib.import_module(module), function)()
    globals()[name] = value
    return value
