"""Users' Keras models: ``.h5``, ``.keras`` and Keras SavedModel folders."""

from __future__ import annotations

import functools
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from typing import Any

from estimator_tl.backbones.digest import file_digest, folder_digest, joined_digest
from estimator_tl.backbones.keras.cut import Features
from estimator_tl.backbones.keras.model import KerasBackbone
from estimator_tl.backbones.keras.objects import imported_objects, missing_objects
from estimator_tl.backbones.keras.versions import readable, remedy, weights_file
from estimator_tl.backbones.safety import check_keras
from estimator_tl.backbones.saved_model.model_file import check_model_file
from estimator_tl.backbones.user_code import UserCode, load_code
from estimator_tl.compat import keras
from estimator_tl.compat.keras2 import is_of_another_keras, keras2_advice, sharing_objects
from estimator_tl.errors import UserError, about, first_line

_KERAS3_REMEDY = (
    "Keras 2 cannot read it. With Keras 3, rebuild the model, call model.export('FOLDER') and use that SavedModel "
    "folder, or save it again from tf_keras (Keras 2) and use that file"
)


def keras_file(
    path: str,
    image_size: int | tuple[int, int] | None = None,
    input_range: tuple[float, float] | None = None,
    pooling: str = "avg",
    features: Features | None = None,
    drop_top: int = 0,
    custom_objects: str | Mapping[str, Any] | None = None,
    allow_unsafe_deserialization: bool = False,
) -> KerasBackbone:
    """Returns a user's Keras 2 model as a backbone.

    Args:
      path: an ``.h5``, ``.hdf5`` or ``.keras`` file, or a Keras SavedModel folder.
      image_size: pixels, where the model does not fix them.
      input_range: the values that the model was trained on; by default, the range that follows from its layers, or
        else [0, 1].
      pooling: avg, max, flatten or none.
      features: the layer whose output becomes the features (``nested/layer`` in a nested model), or a list of layers,
        whose outputs are pooled separately and joined; by default, the model's output. Tuning policies count the
        layers that these outputs need, in the model's order.
      drop_top: instead of `features`, how many layers to leave out at the end; 1 leaves out a classification layer.
      custom_objects: your classes and functions that the model uses: ``pkg.mod:NAME,NAME2``, ``path/file.py:NAME``,
        or a dict by name.
      allow_unsafe_deserialization: also load Lambda layers, which hold Python code.

    Raises:
      UserError: the file is missing, damaged, from Keras 3, or holds only weights; or no range follows from it.
    """
    with about(path):
        if os.path.isdir(path):
            check_model_file(path)
        else:
            check_file(path)
        check_keras(path, allow_unsafe_deserialization)
    code = None
    if isinstance(custom_objects, str):
        code = load_code("custom_objects", custom_objects, "NAMES")
        custom_objects = code.objects
    for name, custom_object in (custom_objects or {}).items():
        if is_of_another_keras(custom_object):
            raise UserError(
                f"custom_objects: {name} does not use the classes of Keras 2, as {path} does; {keras2_advice()}."
            )
    return KerasBackbone(
        handle=path,
        kind="Keras model",
        load=functools.partial(_load, path, custom_objects or {}, allow_unsafe_deserialization),
        digest=functools.partial(_digest, path, code),
        image_size=image_size,
        input_range=input_range,
        pooling=pooling,
        features=features,
        drop_top=drop_top,
        custom_objects=custom_objects,
        allow_code=allow_unsafe_deserialization,
    )


def _digest(path: str, code: UserCode | None) -> str:
    model = folder_digest(path) if os.path.isdir(path) else file_digest(path)
    if code is None:
        return model
    return joined_digest({"model": model, "custom_objects": code.digest})


def check_file(path: str) -> None:
    """Checks that a file holds a whole Keras 2 model, without building it.

    Raises:
      UserError: the file does not hold such a model; the message says what it is.
    """
    if not os.path.isfile(path):
        raise UserError(f"backbone file {path!r} does not exist; check the path.")
    if zipfile.is_zipfile(path):
        _check_keras_zip(path)
    else:
        _check_hdf5(path)


def _check_keras_zip(path: str) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json")).get("keras_version", "")
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a Keras model file ({error}); save the model again.") from error
    if version.startswith("3."):
        raise UserError(f"{path} was saved by Keras {version}; {_KERAS3_REMEDY}.")


def _check_hdf5(path: str) -> None:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            version = _text(file.attrs.get("keras_version", ""))
            has_config = "model_config" in file.attrs
    except OSError as error:
        raise UserError(f"{path} is not a readable HDF5 file ({error}); it may be truncated, copy it again.") from error
    if version.startswith("3."):
        raise UserError(f"{path} was saved by Keras {version}; {_KERAS3_REMEDY}.")
    if not has_config:
        raise UserError(
            f"{path} holds only weights, no model; give it to the network that it belongs to, "
            f"e.g. --backbone=\"keras.MobileNet(weights='{path}')\"."
        )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _load(path: str, custom_objects: Mapping[str, Any], allow_unsafe_deserialization: bool) -> Any:
    missing = missing_objects(path, custom_objects)
    imported = [] if allow_unsafe_deserialization else imported_objects(path, custom_objects)
    if imported:
        raise _needs_objects(path, list(dict.fromkeys([*missing, *imported])))
    try:
        with readable(path) as source:
            model = _read(source, safe_mode=not allow_unsafe_deserialization)
    except Exception as error:  # custom objects may raise anything
        if missing:
            raise _needs_objects(path, missing) from error
        raise UserError(f"{path} cannot be loaded as a Keras 2 model: {first_line(error)}; {remedy(path)}.") from error
    if missing and os.path.isdir(path) and hasattr(model, "input_shape"):
        raise _needs_objects(path, missing)  # Keras replaces such layers by others that no graph can rebuild
    return model


def _read(source: Any, safe_mode: bool) -> Any:
    """Reads a model from the result of `readable`.

    It unpacks the weights of a .keras file first: Keras seeks in the packed file, and so reads it many times.
    """
    if not isinstance(source, str) or not zipfile.is_zipfile(source):
        return keras.models.load_model(source, compile=False, safe_mode=safe_mode)
    with zipfile.ZipFile(source) as archive, tempfile.TemporaryDirectory() as folder:
        if any(name.startswith("assets/") for name in archive.namelist()):
            return keras.models.load_model(source, compile=False, safe_mode=safe_mode)
        config = {**json.loads(archive.read("config.json")), "compile_config": None}
        with sharing_objects():
            model = keras.saving.deserialize_keras_object(config, safe_mode=safe_mode)
        model.load_weights(weights_file(archive, folder))
    return model


def _needs_objects(path: str, missing: list[str]) -> UserError:
    names = ",".join(missing)
    return UserError(
        f"{path} needs {', '.join(missing)}, which Keras does not have; say where the code is with "
        f"custom_objects='pkg.mod:{names}' or 'path/file.py:{names}'."
    )
