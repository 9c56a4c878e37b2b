"""Keras 2 files that another version wrote than the one that is here, made readable."""

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
#: By layer: settings that Keras writes since 2.16, and older versions do not know. A layer does without them what it
#: does where they are off.
_NEWER = {"InputLayer": ("optional",), "MultiHeadAttention": ("softmax_robust_masking",)}


@contextlib.contextmanager
def readable(path: str) -> Iterator[Any]:
    """Gives what `load_model` can read of a model: its path, that of a copy, or an HDF5 file in memory.

    Keras from 2.13 on writes a user's function as an object of today's format into HDF5 files, which it then reads in
    the format of old, where a function is its name.
    """
    config = saved_config(path)
    if path.lower().endswith(_HDF5):
        config, own = _known(_functions_by_name(config)), config
        is_same = config == own and not _has_bfloat16(config)
        with contextlib.nullcontext(path) if is_same else _hdf5_in_memory(path, config) as source:
            yield source
    elif _known(config) == config:
        yield path
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield _folder_copy(path, folder) if os.path.isdir(path) else _zip_copy(path, config, folder)


@contextlib.contextmanager
def _hdf5_in_memory(path: str, config: Any) -> Iterator[Any]:
    import h5py

    with h5py.File(path, "r+", driver="core", backing_store=False) as file:  # nothing is written to the disk
        file.attrs["model_config"] = json.dumps(config)
        _widen(file)
        yield file


def weights_file(archive: zipfile.ZipFile, folder: str) -> str:
    """Unpacks the weights of a .keras file, so that Keras can read them, and returns the path."""
    import h5py

    path = archive.extract("model.weights.h5", folder)
    if _has_bfloat16(json.loads(archive.read("config.json"))):
        with h5py.File(path, "r+") as file:
            _widen(file)
    return path


def _has_bfloat16(config: Any) -> bool:
    return "bfloat16" in json.dumps(config)


def _widen(file: Any) -> None:
    """Makes the bfloat16 values of an HDF5 file float32: HDF5 keeps them as two bytes, which NumPy 2 does not cast."""
    import numpy as np

    narrow: list[str] = []
    file.visititems(lambda name, item: narrow.append(name) if str(getattr(item, "dtype", "")) == "|V2" else None)
    for name in narrow:
        attributes, halves = dict(file[name].attrs), np.asarray(file[name][()])
        wide = np.frombuffer(halves.tobytes(), np.uint16).astype(np.uint32) << 16
        del file[name]
        file[name] = wide.view(np.float32).reshape(halves.shape)
        file[name].attrs.update(attributes)


def _folder_copy(path: str, folder: str) -> str:
    """Returns a folder of links to the files of a Keras SavedModel, but for the configurations of its layers."""
    for entry in Path(path).resolve().iterdir():
        if entry.name != "keras_metadata.pb":
            Path(folder, entry.name).symlink_to(entry)
    rewrite_keras_metadata(path, folder, _known)
    return folder


def _zip_copy(path: str, config: Any, folder: str) -> str:
    copy = os.path.join(folder, "model.keras")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as new:
        for entry in archive.infolist():
            with archive.open(entry) as source, new.open(entry.filename, "w", force_zip64=True) as target:
                if entry.filename == "config.json":
                    target.write(json.dumps(_known(config)).encode())
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


def _known(config: Any) -> Any:
    """Returns a configuration without the settings of newer versions that are off, and with the modules of here.

    Files of tf_keras name its modules. Where `tf.keras` is Keras 2, their layers would not be those of the rest.
    """
    if isinstance(config, list):
        return [_known(value) for value in config]
    if not isinstance(config, dict):
        return config
    unknown = [name for name, value in _newer(config) if not value]
    known = {key: _known(value) for key, value in config.items()}
    module = known.get("module")
    if isinstance(module, str) and module.partition(".")[0] == "tf_keras":
        known["module"] = _PACKAGE + module[len("tf_keras") :]
    if unknown:
        known["config"] = {key: value for key, value in known["config"].items() if key not in unknown}
    return known


def _newer(part: dict[str, Any]) -> list[tuple[str, Any]]:
    """Returns the settings of a layer, and their values, that this Keras does not know."""
    kind, settings = part.get("class_name"), part.get("config")
    if not isinstance(kind, str) or kind not in _NEWER or not isinstance(settings, dict):
        return []
    known = inspect.signature(getattr(keras.layers, kind).__init__).parameters
    return [(name, settings[name]) for name in _NEWER[kind] if name in settings and name not in known]


def remedy(path: str) -> str:
    """Returns what to do about a file that cannot be read."""
    version, own = saved_version(path), keras2_version()
    if _numbers(version) <= _numbers(own):
        return "save it again with Keras 2"
    settings = [
        f"{part['class_name']} with {n}={v!r}" for part in parts(saved_config(path)) for n, v in _newer(part) if v
    ]
    because = f" and has {settings[0]}" if settings else ""
    return f"it is of Keras {version}{because}; use a TensorFlow as new, or save it again with Keras {own}"


def saved_version(path: str) -> str:
    """Returns the version of Keras that wrote a file; an empty string where it does not say."""
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
