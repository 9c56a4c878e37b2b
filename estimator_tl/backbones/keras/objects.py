"""Finds users' classes and functions that a Keras file names."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from estimator_tl.backbones.safety import network_config, parts, saved_config
from estimator_tl.compat import keras

#: Modules of Keras with the objects that configurations name.
_MODULES = ("layers", "models", "activations", "initializers", "regularizers", "constraints", "mixed_precision")
#: Layers that Keras makes of `model.add_loss` and `model.add_metric`.
ADDED = ("AddLoss", "AddMetric")
#: Classes of Keras that these modules do not export: models, layers that Keras makes of functions, a cell.
_UNEXPORTED = (
    "Functional",
    "Model",
    "Sequential",
    "TFOpLambda",
    "SlicingOpLambda",
    "ClassMethod",
    "ConvLSTMCell",
    *ADDED,
)
_OF_KERAS = ("keras", "builtins", "tf_keras")
#: Keys that are not read for inference; their values may name anything.
_NOT_LOADED = frozenset({"training_config", "compile_config", "build_config"})


def missing_objects(path: str, custom_objects: Collection[str]) -> list[str]:
    """Returns the names in a model's configuration that neither Keras nor `custom_objects` has, in its order."""
    names = dict.fromkeys(_names(network_config(path)))
    return [name for name in names if name not in custom_objects and not _is_known(name)]


def imported_objects(path: str, custom_objects: Collection[str]) -> list[str]:
    """Returns the names that would make Keras import a module named in the configuration, and so run its code."""
    return [name for name in dict.fromkeys(_imported(saved_config(path))) if name not in custom_objects]


def _imported(config: Any) -> Iterator[str]:
    """Yields names from modules outside of Keras, except for names that are registered with Keras."""
    for part in parts(config, _NOT_LOADED):
        module, kind, inner = part.get("module"), part.get("class_name"), part.get("config")
        if not isinstance(module, str) or not isinstance(kind, str):
            continue
        is_outside = module.partition(".")[0] not in (*_OF_KERAS, "tensorflow")
        if is_outside and keras.utils.get_registered_object(str(part.get("registered_name"))) is None:
            is_function = kind == "function" and isinstance(inner, str)
            yield str(inner) if is_function else kind


def _names(config: Any) -> Iterator[str]:
    """Yields the classes and functions that a configuration names."""
    for part in parts(config, _NOT_LOADED):
        kind, inner = part.get("class_name"), part.get("config")
        if kind == "function" and isinstance(inner, str):
            yield inner
        elif isinstance(kind, str) and not kind.startswith("__") and isinstance(inner, (dict, list)):
            module = part.get("module") or ""
            if module.partition(".")[0] not in _OF_KERAS:
                registered_name = part.get("registered_name")
                yield registered_name if registered_name and _is_known(registered_name) else kind
        if isinstance(part.get("activation"), str):
            yield part["activation"]


def _is_known(name: str) -> bool:
    if keras.utils.get_registered_object(name) is not None:
        return True
    if name in _UNEXPORTED:
        return True
    return any(hasattr(getattr(keras, module), name) for module in _MODULES)
