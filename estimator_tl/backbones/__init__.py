"""Pretrained backbones: `backbone(handle)` finds out what kind of backbone a handle names, and opens it."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from estimator_tl.backbones.base import Backbone, BuiltBackbone, NoLayersError, TakesTextError
from estimator_tl.backbones.fetching import handles
from estimator_tl.backbones.input.range import UnknownRangeError
from estimator_tl.backbones.safety import check_keras
from estimator_tl.errors import UserError, about
from estimator_tl.registry import Call, Registry, check_arguments, load, parse_call

registry = Registry(
    "backbone",
    {
        "checkpoint": "estimator_tl.backbones.checkpoint.backbone:CheckpointBackbone",
        "keras_model": "estimator_tl.backbones.keras.files:keras_file",
        "saved_model": "estimator_tl.backbones.saved_model.formats:of_either_format",
        "text_encoder": "estimator_tl.backbones.text.encoder:TextEncoderBackbone",
        "tf1_hub": "estimator_tl.backbones.tf1_hub.backbone:TF1HubBackbone",
    },
)

_APPLICATION = "estimator_tl.backbones.keras.applications:keras_application"  # for names that begin with "keras."
_KERAS_FILES = (".h5", ".hdf5", ".keras")
_SIGNATURE_ARGUMENTS = {"signature", "output_key"}  # for SavedModels and TF1 Hub modules only

__all__ = ["Backbone", "BuiltBackbone", "TakesTextError", "backbone", "registry", "takes_range"]


def backbone(
    handle: str, sha256: str | None = None, allow_unsafe_deserialization: bool = False, **kwargs: Any
) -> Backbone:
    """Opens a pretrained backbone.

    Args:
      handle: a Keras application (``keras.MobileNetV2(alpha=0.35)``), a Keras 2
        file (``.h5``, ``.hdf5``, ``.keras``), a SavedModel folder or an archive
        of such a folder, a URL (see `handles.resolve`), or a spec such as
        ``saved_model('PATH', pooling='max')`` or
        ``checkpoint('PATH', network='nets.py:resnet')``.
      sha256: the digest that the backbone's content must have, as `Backbone.digest` and ``inspect`` give it.
      allow_unsafe_deserialization: also load models that hold Python code or access files.
      **kwargs: `image_size` (pixels), `pooling` (avg, max, flatten, none),
        `input_range` ((low, high) that the model takes), where the backbone allows them; for SavedModels and TF1 Hub
        modules also `signature` and `output_key`, for all `features`, for Keras files `drop_top` and `custom_objects`.

    Returns:
      A Backbone with its structure and input contract.

    Raises:
      UserError: the handle does not name a usable backbone; the message says why.

    Example:
      >>> module = etl.backbone("module")
      >>> module.kind, module.input_spec.height
      ('TF2 SavedModel', 8)
      >>> network = etl.backbone("keras.MobileNet(alpha=0.25, weights=None, image_size=32)")
      >>> network.image_spec.range_text
      'keras.applications.mobilenet.preprocess_input'
    """
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    unsafe = {"allow_unsafe_deserialization": True} if allow_unsafe_deserialization else {}
    model = _open(handle, kwargs, unsafe)
    if sha256 is None:
        return model
    if not model.has_content:
        raise UserError(f"{handle} begins with random values, so no digest applies; leave --backbone_sha256 out.")
    digest = model.digest()
    if digest.removeprefix("sha256:") != sha256.removeprefix("sha256:"):
        raise UserError(
            f"{handle} has the digest {digest}, but --backbone_sha256 is {sha256}; get the right file, or correct "
            "the flag."
        )
    return model


def _open(handle: str, kwargs: dict[str, Any], unsafe: dict[str, Any]) -> Backbone:
    call = _as_call(handle)
    if call is None:
        _check_values(handle, kwargs)
        return _open_path(handle, {**kwargs, **unsafe})
    _check_values(handle, {**kwargs, **call.kwargs})
    if call.name.startswith("keras."):
        return _application(call, handle, kwargs)
    if call.name == "checkpoint":  # the user names its code, so it has no such argument
        unsafe = {}
    return _make(call.name, call.args, {**kwargs, **unsafe, **call.kwargs})


def _application(call: Call, handle: str, kwargs: dict[str, Any]) -> Backbone:
    _check_no_signature(handle, kwargs)
    application: Callable[..., Backbone] = functools.partial(load(_APPLICATION), call, handle)
    check_arguments(call.name, application, (), kwargs)
    return application(**kwargs)


def takes_range(handle: str) -> bool:
    """Returns whether a backbone can be opened with an `input_range`; a registered class may lack the argument."""
    call = _as_call(handle)
    if call is None or call.name.startswith("keras."):
        return True
    return registry.takes(call.name, "input_range")


def _check_values(handle: str, values: Mapping[str, Any]) -> None:
    size, input_range = values.get("image_size"), values.get("input_range")
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    if size is not None and (len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides)):
        raise UserError(f"{handle}: image_size={size!r} must be a number of pixels, or (height, width).")
    is_pair = isinstance(input_range, (tuple, list)) and len(input_range) == 2
    if input_range is not None and not (is_pair and all(type(end) in (int, float) for end in input_range)):
        raise UserError(f"{handle}: input_range={input_range!r} must be (low, high), two numbers.")


def _check_no_signature(handle: str, kwargs: dict[str, Any]) -> None:
    for name in sorted(_SIGNATURE_ARGUMENTS & set(kwargs)):
        raise UserError(
            f"{handle} is a Keras model, which has layers and no {name}; leave --backbone_{name} out, or name a layer "
            "by features='LAYER'."
        )


def _as_call(handle: str) -> Call | None:
    """Parses a handle that is a spec; returns None for paths and URLs."""
    head = handle.strip().partition("(")[0]
    if os.path.exists(handle) or not head.replace(".", "").replace("_", "").isalnum():
        return None
    if "(" not in handle and not head.startswith("keras."):
        return None
    return parse_call(handle)


def _open_path(handle: str, kwargs: dict[str, Any]) -> Backbone:
    is_file = os.path.isfile(handle) and not handles.is_archive(handle)
    if handle.lower().endswith(_KERAS_FILES) or is_file:
        _check_no_signature(handle, kwargs)
        return _make("keras_model", (handle,), kwargs)
    module = handles.module_of(handle)
    if os.path.exists(os.path.join(module.folder, "keras_metadata.pb")) and not _SIGNATURE_ARGUMENTS & set(kwargs):
        return _open_keras_folder(module, kwargs)
    return _make("saved_model", (module,), kwargs)


def _open_keras_folder(module: handles.Module, kwargs: dict[str, Any]) -> Backbone:
    """Opens a SavedModel that Keras wrote, with its layers; or without them if they cannot be used.

    Subclassed models, for example, have no layers that a graph can rebuild.
    """
    with about(module.handle):
        check_keras(module.folder, kwargs.get("allow_unsafe_deserialization", False))
    try:
        return _make("keras_model", (module.folder,), kwargs)
    except UnknownRangeError:
        raise
    except UserError as error:
        has_no_layers = isinstance(error, NoLayersError)
        needs_layers = not all(registry.takes("saved_model", name) for name in kwargs)
        if needs_layers or ("features" in kwargs and not has_no_layers):
            raise
        if has_no_layers:
            return _make("saved_model", (module,), kwargs)
        try:
            model = _make("saved_model", (module,), kwargs)
        except UserError:
            raise error from None  # the first error, about the layers, helps more
        notes = (*model.structure.notes, f"a SavedModel without its Keras layers, as {error}".removesuffix("."))
        model.structure = dataclasses.replace(model.structure, notes=notes)
        return model


def _make(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Backbone:
    """Returns a backbone by its registered name; the registry refuses arguments that its class does not take."""
    model: Backbone = registry.make(Call(name, args, kwargs))
    return model
