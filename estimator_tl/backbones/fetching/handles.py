"""Resolves handles of modules: from a path or a URL to the local folder of a SavedModel or a TF1 Hub module."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import urllib.parse
from collections.abc import Mapping
from typing import Any

from estimator_tl.backbones.digest import file_digest
from estimator_tl.backbones.fetching import archives, downloads, kaggle, module_cache
from estimator_tl.backbones.saved_model.model_file import check_model_file
from estimator_tl.errors import SOURCE, UserError, about, nearest
from estimator_tl.files import check_literal


@dataclasses.dataclass(frozen=True)
class Module:
    """A local module: the handle that the user wrote, and the folder that holds its saved_model.pb."""

    handle: str
    folder: str


def module_of(handle: str | Module) -> Module:
    """Returns the module that a handle names, see `resolve`; returns a resolved module unchanged.

    Raises:
      UserError: there is no such module, or it cannot be fetched.
    """
    return handle if isinstance(handle, Module) else Module(handle, resolve(handle))


def resolve(handle: str) -> str:
    """Returns the local folder of a module; fetches it into the cache if necessary.

    Args:
      handle: a folder; an archive of a folder (.tar.gz, .tgz, .tar, .zip); an https URL of an archive, or of a server
        with TensorFlow Hub's protocol; a URL of Kaggle Models; or a folder or an archive on one of TensorFlow's file
        systems, such as gs://.

    Raises:
      UserError: there is no such module, or it cannot be fetched.
    """
    if handle.startswith("http:"):
        raise UserError(f"{handle} is not encrypted; use https.")
    with about(handle):
        if "://" not in handle:
            folder = _local(handle)
        elif handle.startswith("https://"):
            folder = _fetch(handle)
        else:
            folder = _copy(handle.rstrip("/"))
        if not archives.holds_module(folder):
            raise UserError(f"{SOURCE} is not a SavedModel: it holds no saved_model.pb; give the folder that does.")
        check_literal(folder, "backbone")
        check_model_file(folder)
        return folder


def is_archive(handle: str) -> bool:
    """Returns whether a handle is the path of an archive, whether or not the file exists."""
    return "://" not in handle and archives.is_archive(handle)


def _local(handle: str) -> str:
    path = os.path.abspath(os.path.expanduser(handle))
    if not os.path.exists(path):
        raise UserError(f"unknown backbone {handle!r}: no such file or folder; {_suggestion(handle)}")
    if os.path.isdir(path) or not archives.is_archive(path):
        return path
    key = file_digest(path).replace("sha256:", "archive-")  # a changed archive is another module
    return archives.module_folder(module_cache.fill(key, handle, lambda f: archives.unpack(path, f)))


def _suggestion(handle: str) -> str:
    if "/" in handle or "." in handle:
        return "check the path."
    from estimator_tl.backbones.keras.applications import names

    return f"a path, a URL or a name is expected; {nearest(f'keras.{handle}', [f'keras.{n}' for n in names()])}"


def _fetch(handle: str) -> str:
    model = kaggle.model_of(handle)
    key = module_cache.key_of(handle)
    try:
        if model is not None and kaggle.has_client() and module_cache.find(key) is None:
            with module_cache.locked(key, handle):  # Kaggle's client does not support parallel downloads
                return kaggle.fetch(model)
        return archives.module_folder(module_cache.fill(key, handle, lambda f: downloads.fetch_https(handle, f)))
    except downloads.NotFetchedError as error:
        raise _not_fetched(handle, error, _hints(handle, model)) from error


def _hints(handle: str, model: str | None) -> list[str]:
    hints = []
    if urllib.parse.urlsplit(handle).hostname == "tfhub.dev":
        hints.append("tfhub.dev leads to kaggle.com today, so both must be reachable")
    if model is not None and not kaggle.has_client():
        hints.append(kaggle.GET_CLIENT)
    elif model is not None and model.count("/") == 3:
        hints.append("with a version at the end of the address, a copy that Kaggle's client has is used")
    return hints


def _copy(handle: str) -> str:
    """Returns a local copy of a folder or an archive on another file system; copies it again if it has changed.

    If the file system cannot be reached, it returns the newest copy.
    """
    name = module_cache.key_of(handle)
    try:
        files = downloads.list_files(handle)
        key = f"{name}-{_short_digest(files)}"
        folder = module_cache.fill(key, handle, lambda f: downloads.copy(handle, files, f))
        with contextlib.suppress(OSError):  # another user may own the cache
            os.utime(folder)  # makes it the newest copy, even if it existed before
    except downloads.NotFetchedError as error:
        copy = module_cache.newest(name)
        if copy is None:
            raise _not_fetched(handle, error, []) from error
        folder = copy
    return archives.module_folder(folder)


def _short_digest(files: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def _not_fetched(handle: str, error: downloads.NotFetchedError, hints: list[str]) -> UserError:
    reason = "; ".join([str(error), *hints])
    if error.answered:
        return UserError(f"{handle} cannot be fetched ({reason}); check it, or give the folder of an unpacked copy.")
    cache, key = os.path.split(module_cache.path_of(module_cache.key_of(handle)))
    if not os.environ.get("TFHUB_CACHE_DIR"):
        cache += ", a temporary folder (set TFHUB_CACHE_DIR to keep it)"
    return UserError(
        f"{handle} cannot be fetched ({reason}); Hub's cache is {cache}: fill it on a machine with a network, or "
        f"unpack a copy into its folder {key}, or give the folder of an unpacked copy."
    )
