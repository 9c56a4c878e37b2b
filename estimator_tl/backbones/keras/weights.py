"""Loads files of weights into Keras models."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from estimator_tl.errors import SOURCE, UserError, first_line
from estimator_tl.types import KerasModel, Layer

_NAMES = "layer_names"
_PART = 500  # names per attribute, which holds 64 kB at most


def load_weights(model: KerasModel, path: str) -> None:
    """Loads a weights file in either of Keras's two HDF5 layouts into a model.

    Keras chooses the layout by the file's name. It reads ``*.weights.h5`` in the
    new layout, even if the file has the old one, as files from before Keras 2.12
    do. If the file has more layers at the end than the model, such as the top of
    a classifier, they are ignored.

    Raises:
      UserError: the file does not match the model.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file, tempfile.TemporaryDirectory() as folder:
            group = file.get("model_weights", file)
            if _NAMES in group.attrs or f"{_NAMES}0" in group.attrs:
                link = Path(folder) / "w.h5"
                _write_links(link, group, _names_of_first(group, model))
            else:
                link = Path(folder) / "w.weights.h5"
                link.symlink_to(Path(path).resolve())
            model.load_weights(str(link))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"weights {path} do not fit {SOURCE}: {first_line(error)}; check the network's arguments."
        ) from error


def _names_of_first(group: Any, model: KerasModel) -> list[str]:
    """Returns the layers with weights in a file of the old layout, in its order, as many as the model has.

    Keras assigns them to the layers of the model in this order, and compares their shapes.
    """
    parts = [_NAMES] if _NAMES in group.attrs else _numbered(group.attrs)
    names = [name.decode() if isinstance(name, bytes) else name for part in parts for name in group.attrs[part]]
    count = sum(bool(layer.weights) for layer in model.layers)
    return [name for name in names if _has_weights(group[name])][:count]


def _has_weights(layer: Layer) -> bool:
    return any(key.startswith("weight_names") and len(value) for key, value in layer.attrs.items())


def _numbered(attributes: Any) -> list[str]:
    count = sum(key.startswith(_NAMES) for key in attributes)
    return [f"{_NAMES}{number}" for number in range(count)]


def _write_links(path: Path, group: Any, names: Sequence[str]) -> None:
    """Writes a file of the old layout whose layers are links to the layers of another file."""
    import h5py

    with h5py.File(path, "w") as file:
        for key in ("backend", "keras_version"):
            if key in group.attrs:
                file.attrs[key] = group.attrs[key]
        for number, start in enumerate(range(0, len(names), _PART)):
            file.attrs[f"{_NAMES}{number}"] = [name.encode() for name in names[start : start + _PART]]
        for name in dict.fromkeys(name.partition("/")[0] for name in names):  # names may hold slashes
            file[name] = h5py.ExternalLink(str(Path(group.file.filename).resolve()), f"{group.name}/{name}")
