"""Files of weights for Keras models whose code is there."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from estimator_tl.errors import SOURCE, UserError, first_line

_NAMES = "layer_names"
_PART = 500  # names in an attribute, which holds 64 kB at most


def load_weights(model: Any, path: str) -> None:
    """Loads a weights file into a model, whichever of Keras's two HDF5 layouts it has.

    Keras chooses the layout by the file's name: ``*.weights.h5`` is read as the
    new one even where it holds the old one, as files from before Keras 2.12 do.
    Layers that the file has after those of the model, such as the top of a
    classifier, are left out.

    Raises:
      UserError: the file does not fit the model.
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


def _names_of_first(group: Any, model: Any) -> list[str]:
    """Returns the layers with weights in a file of the old layout, in its order, as many as the model has.

    Keras gives them to the layers of the model one by one, and compares their shapes.
    """
    parts = [_NAMES] if _NAMES in group.attrs else _numbered(group.attrs)
    names = [name.decode() if isinstance(name, bytes) else name for part in parts for name in group.attrs[part]]
    return [name for name in names if _has_weights(group[name])][: sum(bool(layer.weights) for layer in model.layers)]


def _has_weights(layer: Any) -> bool:
    return any(key.startswith("weight_names") and len(value) for key, value in layer.attrs.items())


def _numbered(attributes: Any) -> list[str]:
    count = sum(key.startswith(_NAMES) for key in attributes)
    return [f"{_NAMES}{number}" for number in range(count)]


def _write_links(path: Path, group: Any, names: Sequence[str]) -> None:
    """Writes a file of the old layout whose layers are links to those of another file."""
    import h5py

    with h5py.File(path, "w") as file:
        for key in ("backend", "keras_version"):
            if key in group.attrs:
                file.attrs[key] = group.attrs[key]
        for number, start in enumerate(range(0, len(names), _PART)):
            file.attrs[f"{_NAMES}{number}"] = [name.encode() for name in names[start : start + _PART]]
        for name in dict.fromkeys(name.partition("/")[0] for name in names):  # names may hold slashes
            file[name] = h5py.ExternalLink(str(Path(group.file.filename).resolve()), f"{group.name}/{name}")
