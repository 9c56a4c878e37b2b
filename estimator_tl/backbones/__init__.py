"""Pretrained sources: `backbone(handle)` finds out what a handle is and opens it."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

from estimator_tl.backbones.base import Backbone, BuiltBackbone
from estimator_tl.backbones.fetching import handles
from estimator_tl.backbones.input.contract import TakesTextError
from estimator_tl.backbones.input.range import UnknownRangeError
from estimator_tl.errors import UserError, nearest
from estimator_tl.registry import Call, Registry, parse_call

registry = Registry("backbone")

_SIGNED = {"signature", "output_key"}  # arguments of what TensorFlow saved as functions

__all__ = ["Backbone", "BuiltBackbone", "TakesTextError", "backbone", "registry", "takes_range"]


@registry.register("keras_model")
def _keras_model(
    path: str,
    image_size: int | tuple[int, int] | None = None,
    input_range: tuple[float, float] | None = None,
    pooling: str = "avg",
    features: str | Sequence[str] | None = None,
    drop_top: int = 0,
    custom_objects: str | Mapping[str, Any] | None = None,
    allow_unsafe_deserialization: bool = False,
) -> Backbone:
    given = dict(locals())  # the signature is spelled out for messages about wrong arguments
    from estimator_tl.backbones.keras.files import keras_file

    return keras_file(**given)


@registry.register("saved_model")
def _saved_model(
    path: str,
    image_size: int | tuple[int, int] | None = None,
    input_range: tuple[float, float] | None = None,
    pooling: str = "avg",
    signature: str | None = None,
    output_key: str | None = None,
    features: str | Sequence[str] | None = None,
    allow_unsafe_deserialization: bool = False,
) -> Backbone:
    given = dict(locals())  # the signature is spelled out for messages about wrong arguments
    from estimator_tl.backbones.saved_model import backbone as saved_model
    from estimator_tl.backbones.tf1_hub import backbone as tf1_hub

    folder = handles.resolve(path)
    if os.path.exists(os.path.join(folder, tf1_hub.MARK)):
        return _tf1_hub(**given)
    return saved_model.SavedModelBackbone(handle=path, **{**given, "path": folder})


@registry.register("tf1_hub")
def _tf1_hub(
    path: str,
    image_size: int | tuple[int, int] | None = None,
    input_range: tuple[float, float] | None = None,
    pooling: str = "avg",
    signature: str | None = None,
    output_key: str | None = None,
    features: str | Sequence[str] | None = None,
    allow_unsafe_deserialization: bool = False,
) -> Backbone:
    given = dict(locals())  # the signature is spelled out for messages about wrong arguments
    from estimator_tl.backbones.tf1_hub.backbone import TF1HubBackbone

    return TF1HubBackbone(handle=path, **{**given, "path": handles.resolve(path)})


@registry.register("text_encoder")
def _text_encoder(
    path: str,
    vocab: str | None = None,
    preprocess: str | None = None,
    seq_length: int | None = None,
    lower_case: bool = True,
    pooling: str = "avg",
    signature: str | None = None,
    output_key: str | None = None,
    features: str | Sequence[str] | None = None,
    allow_unsafe_deserialization: bool = False,
) -> Backbone:
    given = dict(locals())  # the signature is spelled out for messages about wrong arguments
    from estimator_tl.backbones.text.encoder import TextEncoderBackbone

    given["preprocess"] = None if preprocess is None else handles.resolve(preprocess)
    return TextEncoderBackbone(handle=path, **{**given, "path": handles.resolve(path)})


@registry.register("checkpoint")
def _checkpoint(
    path: str,
    network: str,
    image_size: int | None = None,
    pooling: str = "avg",
    input_range: tuple[float, float] | None = None,
    channels: int = 3,
    features: str | Sequence[str] | None = None,
    scope: str = "",
    rename: dict[str, str] | None = None,
    exclude: str | Sequence[str] = (),
    skip_mismatched: bool = False,
    ema: bool = True,
) -> Backbone:
    given = dict(locals())  # the signature is spelled out for messages about wrong arguments
    from estimator_tl.backbones.checkpoint.backbone import CheckpointBackbone

    return CheckpointBackbone(**given)


def backbone(
    handle: str, sha256: str | None = None, allow_unsafe_deserialization: bool = False, **kwargs: Any
) -> Backbone:
    """Opens a pretrained source.

    Args:
      handle: a Keras application (``keras.MobileNetV2(alpha=0.35)``), a Keras 2
        file (``.h5``, ``.hdf5``, ``.keras``), a SavedModel folder or an archive
        of one, an address (see `handles.resolve`), or a spec such as
        ``saved_model('PATH', pooling='max')`` or
        ``checkpoint('PATH', network='nets.py:resnet')``.
      sha256: the digest that the source's content must have, as `Backbone.digest` and ``inspect`` give it.
      allow_unsafe_deserialization: load what holds Python code or reads and writes files, too.
      **kwargs: `image_size` (pixels), `pooling` (avg, max, flatten, none),
        `input_range` ((low, high) that the model takes), where the source allows them; for SavedModels and TF1 Hub
        modules also `signature` and `output_key`, for all `features`, for Keras files `drop_top` and `custom_objects`.

    Returns:
      A Backbone with its structure and input contract read.

    Raises:
      UserError: the handle names nothing that can be used; the message says why.
    """
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    opened = _open(handle, kwargs, {"allow_unsafe_deserialization": True} if allow_unsafe_deserialization else {})
    if sha256 is None:
        return opened
    if not opened.has_content:
        raise UserError(f"{handle} begins with random values, which no digest pins; leave --backbone_sha256 out.")
    found = opened.digest()
    if found.removeprefix("sha256:") != sha256.removeprefix("sha256:"):
        raise UserError(
            f"{handle} has the content {found}, not the one that was asked for ({sha256}); get the right one, or "
            "correct --backbone_sha256."
        )
    return opened


def _open(handle: str, kwargs: dict[str, Any], unsafe: dict[str, Any]) -> Backbone:
    call = _as_call(handle)
    _check_values(handle, {**kwargs, **(call.kwargs if call else {})})
    if call is not None and call.name.startswith("keras."):
        from estimator_tl.backbones.keras.applications import keras_application

        _check_no_signature(handle, kwargs)
        known = list(inspect.signature(keras_application).parameters)[2:]
        for name in kwargs:
            if name not in known:
                raise UserError(f"{call.name} has no argument {name!r}; {nearest(name, known)}")
        return keras_application(call, handle, **kwargs)
    if call is not None:
        if call.name == "checkpoint":  # its network is code that the user names anyway
            unsafe = {}
        return _made(call.name, call.args, {**kwargs, **unsafe, **call.kwargs})
    return _open_path(handle, {**kwargs, **unsafe})


def takes_range(handle: str) -> bool:
    """Returns whether a source can be opened with an `input_range`; sources of users may have no such argument."""
    call = _as_call(handle)
    if call is None or call.name.startswith("keras."):
        return True
    return registry.takes(call.name, "input_range") or call.name in ("keras_model", "saved_model")


def _check_values(handle: str, values: Mapping[str, Any]) -> None:
    size, values_in = values.get("image_size"), values.get("input_range")
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    if size is not None and (len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides)):
        raise UserError(f"{handle}: image_size={size!r} must be a number of pixels, or (height, width).")
    is_pair = isinstance(values_in, (tuple, list)) and len(values_in) == 2
    if values_in is not None and not (is_pair and all(type(end) in (int, float) for end in values_in)):
        raise UserError(f"{handle}: input_range={values_in!r} must be (low, high), two numbers.")


def _check_no_signature(handle: str, kwargs: dict[str, Any]) -> None:
    for name in sorted(_SIGNED & set(kwargs)):
        raise UserError(
            f"{handle} is a Keras model, which has layers and no {name}; leave --backbone_{name} out, or name a layer "
            "by features='LAYER'."
        )


def _with_note(opened: Backbone, note: str) -> Backbone:
    structure = opened.structure
    opened.structure = dataclasses.replace(structure, notes=(*structure.notes, note.removesuffix(".")))
    return opened


def _as_call(handle: str) -> Call | None:
    """Parses a handle that is a spec; None for paths and URLs."""
    head = handle.strip().partition("(")[0]
    if os.path.exists(handle) or not head.replace(".", "").replace("_", "").isalnum():
        return None
    if "(" not in handle and not head.startswith("keras."):
        return None
    return parse_call(handle)


def _open_path(handle: str, kwargs: dict[str, Any]) -> Backbone:
    from estimator_tl.backbones.keras import files as keras_files
    from estimator_tl.backbones.keras import model as keras_model

    is_file = os.path.isfile(handle) and not handles.is_archive(handle)
    if handle.lower().endswith(keras_files.FILE_SUFFIXES) or is_file:
        _check_no_signature(handle, kwargs)
        return _made("keras_model", (handle,), kwargs)
    folder = handles.resolve(handle)
    if os.path.exists(os.path.join(folder, "keras_metadata.pb")) and not _SIGNED & set(kwargs):
        from estimator_tl.backbones.safety import check_keras

        check_keras(folder, handle, kwargs.get("allow_unsafe_deserialization", False))
        try:
            return _made("keras_model", (folder,), kwargs)
        except UserError as error:
            if isinstance(error, UnknownRangeError):
                raise
            no_layers = isinstance(error, keras_model.NoLayersError)
            only_layers = set(kwargs) - set(inspect.signature(_saved_model).parameters)
            if only_layers or ("features" in kwargs and not no_layers):
                raise
            # A subclassed Keras model: it has no layer list, but is a SavedModel like any other.
            if no_layers:
                return _made("saved_model", (handle,), kwargs)
            try:
                opened = _made("saved_model", (handle,), kwargs)
            except UserError:
                raise error from None  # the code of its layers is what it needs most
            return _with_note(opened, f"a SavedModel without its Keras layers, as {error}")
    return _made("saved_model", (handle,), kwargs)


def _made(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Backbone:
    """Returns the source of a registered name; arguments that it does not take are refused."""
    opened: Backbone = registry.make(Call(name, args, kwargs))
    return opened
