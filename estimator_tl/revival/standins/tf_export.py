"""Stand-in for the API name 'estimator' of `tensorflow.python.util.tf_export`, which TensorFlow removed in 2.16.

The Estimator package marks its public symbols with this name. The stand-in adds entries, and extends the functions that
list the names of a symbol.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_NAME = "estimator"


def add_estimator_api_name() -> None:
    """Adds the API name 'estimator', its attribute names and the names of its symbols, if they are missing."""
    from tensorflow.python.util import tf_export

    if hasattr(tf_export, "ESTIMATOR_API_NAME"):
        return
    attributes = type(tf_export.API_ATTRS[tf_export.TENSORFLOW_API_NAME])
    v2 = attributes("_estimator_api_names", "_estimator_api_constants")
    v1 = attributes("_estimator_api_names_v1", "_estimator_api_constants_v1")
    tf_export.API_ATTRS[_NAME], tf_export.API_ATTRS_V1[_NAME] = v2, v1
    for name, attribute in {
        "get_v1_names": v1.names,
        "get_v2_names": v2.names,
        "get_v1_constants": v1.constants,
        "get_v2_constants": v2.constants,
    }.items():
        setattr(tf_export, name, _with_attribute(getattr(tf_export, name), attribute))
    tf_export.SUBPACKAGE_NAMESPACES.append(_NAME)  # so that nothing else is exported under it
    tf_export.ESTIMATOR_API_NAME = _NAME


def _with_attribute(get: Callable[[Any], list[Any]], attribute: str) -> Callable[[Any], list[Any]]:
    """Returns a function that lists what `get` lists, and the names in one more attribute of a symbol or module."""

    @functools.wraps(get)
    def listed(symbol: Any) -> list[Any]:
        return [*get(symbol), *getattr(symbol, "__dict__", {}).get(attribute, ())]

    return listed
