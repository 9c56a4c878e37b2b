"""Finds, before a backbone is loaded, what it could do besides computing features."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from typing import Any

from estimator_tl.compat.keras2 import keras_metadata
from estimator_tl.errors import SOURCE, UserError
from estimator_tl.tf_internals.files.saved_models import operations

#: Operations that read or write files that the graph names, or run Python code.
_DANGEROUS = frozenset(
    {
        "ReadFile", "WriteFile", "MatchingFiles", "WholeFileReader", "WholeFileReaderV2", "TextLineReader",
        "TextLineReaderV2", "TFRecordReader", "TFRecordReaderV2", "TextLineDataset", "TFRecordDataset",
        "TFRecordDatasetV2", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "SaveDatasetV2", "SaveSlices",
        "PyFunc", "PyFuncStateless", "EagerPyFunc", "DebugIdentity", "DebugIdentityV2",
    }
)  # fmt: skip
#: TensorFlow functions that do the same; Keras models name them in their TFOpLambda layers.
_DANGEROUS_FUNCTIONS = frozenset(
    {"io.read_file", "io.write_file", "io.matching_files", "py_function", "numpy_function", "print"}
)
_METRIC = "_tf_keras_metric"  # the identifier of metrics among the objects of a Keras SavedModel
_REMEDY = "load it only if you trust where it comes from, with --allow_unsafe_deserialization"


def dangerous_operations(path: str) -> list[str]:
    """Returns the kinds of operations in a SavedModel that access files or run Python code, sorted.

    Operations that restore the model's own variables and vocabularies do not count.
    """
    kinds = set()
    for node in operations(path):
        if node.op in _DANGEROUS:
            kinds.add(node.op)
        elif node.op == "PrintV2" and _prints_to_file(node):
            kinds.add("PrintV2 to a file")
    return sorted(kinds)


def _prints_to_file(node: Any) -> bool:
    return bool(node.attr["output_stream"].s.startswith(b"file://"))


def check_saved_model(path: str, allowed: bool) -> list[str]:
    """Checks a SavedModel before it is loaded, and returns its `dangerous_operations`.

    Raises:
      UserError: the model has dangerous operations, and they are not allowed.
    """
    kinds = dangerous_operations(path)
    if kinds and not allowed:
        raise UserError(f"{SOURCE} reads or writes files or runs code of its own ({', '.join(kinds)}); {_REMEDY}.")
    return kinds


def check_keras(path: str, allowed: bool) -> None:
    """Checks a Keras model before it is loaded.

    Raises:
      UserError: the model holds Python code (Lambda layers are saved as marshalled code) or calls dangerous functions,
        and they are not allowed.
    """
    if allowed:
        return
    config = saved_config(path)
    layers = list(dict.fromkeys(_lambda_layers(config)))
    if layers:
        raise UserError(f"{SOURCE} holds Python code in its Lambda layers ({', '.join(layers)}); {_REMEDY}.")
    functions = sorted(set(_functions(config)) & _DANGEROUS_FUNCTIONS)
    if functions:
        raise UserError(f"{SOURCE} reads or writes files or runs code of its own ({', '.join(functions)}); {_REMEDY}.")


def network_config(path: str) -> Any:
    """Returns the `saved_config` without the metrics that a model was compiled with."""
    if not os.path.isdir(path):
        return saved_config(path)
    return [config for kind, config in keras_metadata(path) if kind != _METRIC]


def saved_config(path: str) -> Any:
    """Returns the configuration in a Keras file or folder; None where there is no readable one."""
    try:
        if os.path.isdir(path):
            return [config for _, config in keras_metadata(path)]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        import h5py

        with h5py.File(path, "r") as file:
            return json.loads(file.attrs["model_config"])
    except (OSError, KeyError, ValueError):
        return None  # loading the model reports what is wrong


def parts(config: Any, without: frozenset[str] = frozenset()) -> Iterator[dict[str, Any]]:
    """Yields each dict of a configuration, outer dicts first, and skips values under the keys in `without`."""
    if isinstance(config, dict):
        yield config
        config = [value for key, value in config.items() if key not in without]
    if isinstance(config, list):
        for value in config:
            yield from parts(value, without)


def _layers(config: Any, kind: str) -> Iterator[dict[str, Any]]:
    """Yields the settings of all layers of a kind."""
    for part in parts(config):
        if part.get("class_name") == kind and isinstance(part.get("config"), dict):
            yield part["config"]


def _lambda_layers(config: Any) -> Iterator[str]:
    """Yields the names of Lambda layers whose function is saved as code and not by name."""
    for layer in _layers(config, "Lambda"):
        if _is_code(layer.get("function")):
            yield str(layer.get("name", "lambda"))


def _functions(config: Any) -> Iterator[str]:
    """Yields the names of the TensorFlow functions that a configuration calls."""
    return (str(layer.get("function")) for layer in _layers(config, "TFOpLambda"))


def _is_code(function: Any) -> bool:
    if isinstance(function, dict):
        return function.get("class_name") in ("__lambda__", "__tuple__")
    return isinstance(function, (list, tuple)) or function is None
