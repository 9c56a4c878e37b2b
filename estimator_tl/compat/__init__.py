"""The one door to TensorFlow, from 2.15 (the last with Estimator) to the newest.

`tf`, `keras` (Keras 2 on every version), `estimator` and `hub` are resolved on
first use, so that importing this package costs nothing. Private TensorFlow
symbols are used in this package only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    tf: Any
    keras: Any
    estimator: Any
    hub: Any


def __getattr__(name: str) -> Any:
    load: Callable[[], Any]
    if name == "tf":
        from estimator_tl.compat.versions import load_tensorflow as load
    elif name == "keras":
        from estimator_tl.compat.keras2 import load_keras2 as load
    elif name == "estimator":
        from estimator_tl.compat.estimator_api import load_estimator as load
    elif name == "hub":
        from estimator_tl.compat.versions import load_hub as load
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = load()
    globals()[name] = value
    return value
