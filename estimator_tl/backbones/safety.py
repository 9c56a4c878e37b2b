"""What a source could do beside computing features, found before it is loaded."""

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
#: The same as functions of TensorFlow that Keras models name in their TFOpLambda layers.
_DANGEROUS_FUNCTIONS = frozenset(
    {"io.read_file", "io.write_file", "io.matching_files", "py_function", "numpy_function", "print"}
)
_METRIC = "_tf_keras_metric"  # how a Keras SavedModel calls a metric among its objects
_REMEDY = "load it only if you trust where it comes from, with --allow_unsafe_deserialization"


def dangerous_operations(path: str) -> list[str]:
    """Returns the kinds of operations in a SavedModel that reach beyond it, sorted; [] where there are none.

    The operations by which every SavedModel restores its own variables and vocabularies are not among them.
    """
    found = set()
    for node in operations(path):
        if node.op in _DANGEROUS:
            found.add(node.op)
        elif node.op == "PrintV2" and _prints_to_file(node):
            found.add("PrintV2 to a file")
    return sorted(found)


def _prints_to_file(node: Any) -> bool:
    return bool(node.attr["output_stream"].s.startswith(b"file://"))


def check_saved_model(path: str, allowed: bool) -> list[str]:
    """Checks a SavedModel before it is loaded, and returns its `dangerous_operations`.

    Raises:
      UserError: it has some, and that was not allowed.
    """
    found = dangerous_operations(path)
    if found and not allowed:
        raise UserError(f"{SOURCE} reads or writes files or runs code of its own ({', '.join(found)}); {_REMEDY}.")
    return found


def check_keras(path: str, allowed: bool) -> None:
    """Checks a Keras model before it is loaded.

    Raises:
      UserError: it holds Python code (Lambda layers are saved as marshalled code), and that was not allowed.
    """
    if allowed:
        return
    config = saved_config(path)
    found = list(dict.fromkeys(_lambda_layers(config)))
    if found:
        raise UserError(f"{SOURCE} holds Python code in its Lambda layers ({', '.join(found)}); {_REMEDY}.")
    found = sorted(set(_functions(config)) & _DANGEROUS_FUNCTIONS)
    if found:
        raise UserError(f"{SOURCE} reads or writes files or runs code of its own ({', '.join(found)}); {_REMEDY}.")


def network_config(path: str) -> Any:
    """Returns the `saved_config` without what a model was compiled with, which is no part of its network."""
    if not os.path.isdir(path):
        return saved_config(path)
    return [config for kind, config in keras_metadata(path) if kind != _METRIC]


def saved_config(path: str) -> Any:
    """Returns the configuration that a Keras file or folder holds; None where it holds none."""
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
        return None  # whoever loads it says what is wrong with it


def parts(config: Any, without: frozenset[str] = frozenset()) -> Iterator[dict[str, Any]]:
    """Yields each dict of a configuration, before those that it holds, but for what is under keys of `without`."""
    if isinstance(config, dict):
        yield config
        config = [value for key, value in config.items() if key not in without]
    if isinstance(config, list):
        for value in config:
            yield from parts(value, without)


def _layers(config: Any, kind: str) -> Iterator[dict[str, Any]]:
    """Yields the settings of the layers of a kind."""
    for part in parts(config):
        if part.get("class_name") == kind and isinstance(part.get("config"), dict):
            yield part["config"]


def _lambda_layers(config: Any) -> Iterator[str]:
    """Yields the names of the Lambda layers in a configuration whose function is code rather than a name."""
    for layer in _layers(config, "Lambda"):
        if _is_code(layer.get("function")):
            yield str(layer.get("name", "lambda"))


def _functions(config: Any) -> Iterator[str]:
    """Yields the names of TensorFlow's functions that a configuration calls."""
    return (str(layer.get("function")) for layer in _layers(config, "TFOpLambda"))


def _is_code(function: Any) -> bool:
    if isinstance(function, dict):
        return function.get("class_name") in ("__lambda__", "__tuple__")
    return isinstance(function, (list, tuple)) or function is None
