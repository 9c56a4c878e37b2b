"""Handles of modules: from a path or an address to the local folder of a SavedModel or a TF1 Hub module."""

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
    """A module that is here: what the user called it, and the folder that holds its saved_model.pb."""

    handle: str
    folder: str


def module_of(handle: str | Module) -> Module:
    """Returns the module that a handle names; see `resolve`. One that was resolved already passes.

    Raises:
      UserError: there is no such module, or it cannot be had now.
    """
    return handle if isinstance(handle, Module) else Module(handle, resolve(handle))


def resolve(handle: str) -> str:
    """Returns the local folder of a module, fetched into the cache if need be.

    Args:
      handle: a folder; an archive of one (.tar.gz, .tgz, .tar, .zip); an https address that answers as TensorFlow
        Hub's protocol has it, or of an archive; an address of Kaggle Models; or a folder or an archive on one of
        TensorFlow's file systems, such as gs://.

    Raises:
      UserError: there is no such module, or it cannot be had now.
    """
    if handle.startswith("http:"):
        raise UserError(f"{handle} is not encrypted; use https.")
    with about(handle):
        if "://" not in handle:
            folder = _local(handle)
        elif handle.startswith("https://"):
            folder = _fetched(handle)
        else:
            folder = _copied(handle.rstrip("/"))
        if not archives.holds_module(folder):
            raise UserError(f"{SOURCE} is not a SavedModel: it holds no saved_model.pb; give the folder that does.")
        check_literal(folder, "backbone")
        check_model_file(folder)
        return folder


def is_archive(handle: str) -> bool:
    """True where a handle is a local archive of a module, or would be if it were there."""
    return "://" not in handle and archives.is_archive(handle)


def _local(handle: str) -> str:
    path = os.path.abspath(os.path.expanduser(handle))
    if not os.path.exists(path):
        raise UserError(f"unknown backbone {handle!r}: no such file or folder; {_suggestion(handle)}")
    if os.path.isdir(path) or not archives.is_archive(path):
        return path
    key = file_digest(path).replace("sha256:", "archive-")  # another content is another module
    return archives.module_folder(module_cache.fill(key, handle, lambda f: archives.unpack(path, f)))


def _suggestion(handle: str) -> str:
    if "/" in handle or "." in handle:
        return "check the path."
    from estimator_tl.backbones.keras.applications import names

    return f"a path, a URL or a name is expected; {nearest(f'keras.{handle}', [f'keras.{n}' for n in names()])}"


def _fetched(handle: str) -> str:
    model = kaggle.model_of(handle)
    key = module_cache.key_of(handle)
    try:
        if model is not None and kaggle.has_client() and module_cache.find(key) is None:
            with module_cache.locked(key, handle):  # the client's own downloads do not expect each other
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
        hints.append("with a version at the address's end, a copy that Kaggle's client has is used")
    return hints


def _copied(handle: str) -> str:
    """Returns the copy of a folder or an archive on another file system, made anew when that has changed.

    Where it cannot be looked at, the newest copy is taken.
    """
    name = module_cache.key_of(handle)
    try:
        files = downloads.list_files(handle)
        key = f"{name}-{_short_digest(files)}"
        folder = module_cache.fill(key, handle, lambda f: downloads.copy(handle, files, f))
        with contextlib.suppress(OSError):  # in a cache that others filled
            os.utime(folder)  # this one is the newest, even if it is one of before
    except downloads.NotFetchedError as error:
        found = module_cache.newest(name)
        if found is None:
            raise _not_fetched(handle, error, []) from error
        folder = found
    return archives.module_folder(folder)


def _short_digest(files: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def _not_fetched(handle: str, error: downloads.NotFetchedError, hints: list[str]) -> UserError:
    why = "; ".join([str(error), *hints])
    if error.answered:
        return UserError(f"{handle} cannot be fetched ({why}); check it, or give the folder of an unpacked copy.")
    cache, key = os.path.split(module_cache.place(module_cache.key_of(handle)))
    kept = "" if os.environ.get("TFHUB_CACHE_DIR") else ", a temporary folder (set TFHUB_CACHE_DIR to keep it)"
    return UserError(
        f"{handle} cannot be fetched ({why}); Hub's cache is {cache}{kept}: fill it on a machine with a network, or "
        f"unpack a copy into its folder {key}, or give the folder of an unpacked copy."
    )
