"""Makes Keras 2 files from other versions readable for the installed version."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from estimator_tl.backbones.safety import parts, saved_config
from estimator_tl.compat import keras
from estimator_tl.compat.keras2 import keras2_version, rewrite_keras_metadata

_HDF5 = (".h5", ".hdf5")
_PACKAGE = keras.Model.__module__.partition(".")[0]
#: By layer: settings that Keras 2.16 and later write and older versions do not know. Leaving one out equals turning it
#: off.
_NEWER = {"InputLayer": ("optional",), "MultiHeadAttention": ("softmax_robust_masking",)}


@contextlib.contextmanager
def readable(path: str) -> Iterator[Any]:
    """Gives a source that `load_model` can read: the path of the model, the path of a copy, or an HDF5 file in memory.

    Keras 2.13 and later write a user's function into HDF5 files as an object, in the new format, but read these files
    in the old format, where a function is its name.
    """
    config = saved_config(path)
    if path.lower().endswith(_HDF5):
        readable_config = _without_newer(_functions_by_name(config))
        if readable_config == config and not _has_bfloat16(config):
            yield path
            return
        with _hdf5_in_memory(path, readable_config) as file:
            yield file
    elif _without_newer(config) == config:
        yield path
    else:
        with tempfile.TemporaryDirectory() as folder:
            if os.path.isdir(path):
                yield _folder_copy(path, folder)
            else:
                yield _zip_copy(path, config, folder)


@contextlib.contextmanager
def _hdf5_in_memory(path: str, config: Any) -> Iterator[Any]:
    import h5py

    with h5py.File(path, "r+", driver="core", backing_store=False) as file:  # nothing is written to the disk
        file.attrs["model_config"] = json.dumps(config)
        _widen(file)
        yield file


def weights_file(archive: zipfile.ZipFile, folder: str) -> str:
    """Unpacks the weights of a .keras file in a form that Keras can read, and returns the path."""
    import h5py

    path = archive.extract("model.weights.h5", folder)
    if _has_bfloat16(json.loads(archive.read("config.json"))):
        with h5py.File(path, "r+") as file:
            _widen(file)
    return path


def _has_bfloat16(config: Any) -> bool:
    return "bfloat16" in json.dumps(config)


def _widen(file: Any) -> None:
    """Makes the bfloat16 values of an HDF5 file float32: HDF5 stores them as two bytes, which NumPy 2 does not cast."""
    import numpy as np

    names: list[str] = []

    def add_bfloat16(name: str, item: Any) -> None:
        if str(getattr(item, "dtype", "")) == "|V2":
            names.append(name)

    file.visititems(add_bfloat16)
    for name in names:
        attributes, halves = dict(file[name].attrs), np.asarray(file[name][()])
        wide = np.frombuffer(halves.tobytes(), np.uint16).astype(np.uint32) << 16
        del file[name]
        file[name] = wide.view(np.float32).reshape(halves.shape)
        file[name].attrs.update(attributes)


def _folder_copy(path: str, folder: str) -> str:
    """Makes a copy of a Keras SavedModel in a folder: new layer configurations, and links to all other files."""
    for entry in Path(path).resolve().iterdir():
        if entry.name != "keras_metadata.pb":
            Path(folder, entry.name).symlink_to(entry)
    rewrite_keras_metadata(path, folder, _without_newer)
    return folder


def _zip_copy(path: str, config: Any, folder: str) -> str:
    copy = os.path.join(folder, "model.keras")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as new:
        for entry in archive.infolist():
            with archive.open(entry) as source, new.open(entry.filename, "w", force_zip64=True) as target:
                if entry.filename == "config.json":
                    target.write(json.dumps(_without_newer(config)).encode())
                else:
                    shutil.copyfileobj(source, target)
    return copy


def _functions_by_name(config: Any) -> Any:
    if isinstance(config, list):
        return [_functions_by_name(value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "function" and isinstance(config.get("config"), str):
        return config["config"]
    return {key: _functions_by_name(value) for key, value in config.items()}


def _without_newer(config: Any) -> Any:
    """Returns a configuration without newer settings that are off, and with the module names of the installed Keras.

    Files from tf_keras name the modules of tf_keras. Where `tf.keras` is Keras 2, these would be different classes.
    """
    if isinstance(config, list):
        return [_without_newer(value) for value in config]
    if not isinstance(config, dict):
        return config
    newer = [name for name, value in _newer(config) if not value]
    copy = {key: _without_newer(value) for key, value in config.items()}
    module = copy.get("module")
    if isinstance(module, str) and module.partition(".")[0] == "tf_keras":
        copy["module"] = _PACKAGE + module[len("tf_keras") :]
    if newer:
        copy["config"] = {key: value for key, value in copy["config"].items() if key not in newer}
    return copy


def _newer(part: dict[str, Any]) -> list[tuple[str, Any]]:
    """Returns the settings of a layer that this Keras does not know, with their values."""
    kind, settings = part.get("class_name"), part.get("config")
    if not isinstance(kind, str) or kind not in _NEWER or not isinstance(settings, dict):
        return []
    parameters = inspect.signature(getattr(keras.layers, kind).__init__).parameters
    return [(name, settings[name]) for name in _NEWER[kind] if name in settings and name not in parameters]


def remedy(path: str) -> str:
    """Returns advice for a file that Keras cannot read."""
    version, installed = saved_version(path), keras2_version()
    if _numbers(version) <= _numbers(installed):
        return "save it again with Keras 2"
    settings = [
        f"{part['class_name']} with {n}={v!r}" for part in parts(saved_config(path)) for n, v in _newer(part) if v
    ]
    because = f" and has {settings[0]}" if settings else ""
    advice = f"use a TensorFlow with this Keras, or save it again with Keras {installed}"
    return f"it is from Keras {version}{because}; {advice}"


def saved_version(path: str) -> str:
    """Returns the version of Keras that wrote a file; an empty string where the file does not say."""
    try:
        if os.path.isdir(path):
            versions = [part["keras_version"] for part in parts(saved_config(path)) if "keras_version" in part]
            return str(versions[0]) if versions else ""
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
        import h5py

        with h5py.File(path, "r") as file:
            version = file.attrs.get("keras_version", "")
            return version.decode() if isinstance(version, bytes) else str(version)
    except (OSError, KeyError, ValueError):
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split(".")[:2] if number.isdigit())
