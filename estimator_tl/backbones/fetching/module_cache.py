"""The cache of fetched modules. It has the folder and the names of TensorFlow Hub, so both use the same modules.

A complete module gets into the cache by an atomic rename. The lock here is a lock of the kernel, which the process
releases however it ends. Hub's own lock is a file that stays after a killed process, and Hub waits twenty minutes for
it. This module ignores Hub's lock, because an atomic rename is safe without it.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO

from absl import logging

from estimator_tl.errors import UserError
from estimator_tl.tf_internals import hub_settings

_MARKER = ".estimator_tl"  # in the names of our temporary files
_PATIENCE = 600.0
_PAUSE = 0.2


def path_of(key: str) -> str:
    """Returns the path of a key's folder in the cache; the folder need not exist.

    Raises:
      UserError: the cache is not a local folder.
    """
    cache = hub_settings.cache_folder()
    if "://" in cache:
        raise UserError(f"TFHUB_CACHE_DIR is {cache}, but modules are read from a local folder; set it to one.")
    return os.path.join(os.path.abspath(os.path.expanduser(cache)), key)


def key_of(handle: str) -> str:
    """Returns the name of a handle's folder, the same as in Hub."""
    return hashlib.sha1(handle.encode("utf8")).hexdigest()


def find(key: str) -> str | None:
    """Returns the folder of a module in the cache; None where the cache does not have it."""
    folder = path_of(key)
    return folder if os.path.isdir(folder) and os.listdir(folder) else None


def holds(folder: str) -> bool:
    """Returns whether a folder is in the cache."""
    cache = hub_settings.cache_folder()
    return "://" not in cache and os.path.abspath(folder).startswith(os.path.join(path_of(""), ""))


def entry(folder: str) -> str:
    """Returns the top-level folder of the cache that is, or contains, a folder."""
    cache = path_of("")
    return os.path.join(cache, os.path.relpath(os.path.abspath(folder), cache).split(os.sep)[0])


def newest(prefix: str) -> str | None:
    """Returns the folder of the most recent module whose key has a prefix; None where there is no such module."""
    paths = [path for path in glob.glob(glob.escape(path_of(prefix)) + "*") if find(os.path.basename(path))]
    modules = [path for path in paths if _MARKER not in os.path.basename(path)]
    return max(modules, key=os.path.getmtime, default=None)


def fill(key: str, handle: str, fetch: Callable[[str], None]) -> str:
    """Returns the folder of a module; fetches it if it is not in the cache.

    Args:
      key: its name in the cache.
      handle: the handle that the user wrote.
      fetch: fills the empty folder that is its argument; after an error it may leave a part of a module there.

    Raises:
      UserError: the cache cannot be written, or is locked for long.
    """
    module_folder = find(key)
    if module_folder:
        return module_folder
    folder = path_of(key)
    with locked(key, handle) as has_lock:
        if find(key):
            return folder
        if has_lock:  # so these files are from processes that were killed
            for leftover in glob.glob(f"{glob.escape(folder)}{_MARKER}.*.tmp"):
                shutil.rmtree(leftover, ignore_errors=True)
        work = tempfile.mkdtemp(prefix=f"{key}{_MARKER}.", suffix=".tmp", dir=os.path.dirname(folder))
        try:
            logging.info("Fetching %s into %s.", handle, folder)
            module = os.path.join(work, "module")
            os.mkdir(module)
            fetch(module)
            _move(module, folder)
            with open(f"{folder}.descriptor.txt", "w") as stream:  # as Hub does, for people who read the cache
                stream.write(f"Module: {handle}\n")
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder


def _move(module: str, folder: str) -> None:
    try:
        os.rename(module, folder)
    except OSError:
        if not find(os.path.basename(folder)):  # otherwise Hub, in another program, was faster
            raise


@contextlib.contextmanager
def locked(key: str, handle: str) -> Iterator[bool]:
    """A block in which no other process fetches the same module.

    Yields:
      Whether this process has the lock; False on file systems without locks.

    Raises:
      UserError: the cache cannot be written, or another process has the lock for long.
    """
    path = f"{path_of(key)}{_MARKER}.lock"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        stream = open(path, "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(
            f"the cache of modules, {os.path.dirname(path)}, cannot be written ({error.strerror}); "
            "set TFHUB_CACHE_DIR to a folder that can."
        ) from error
    with stream:
        yield _lock(stream, path, handle)


def _lock(stream: IO[str], path: str, handle: str) -> bool:
    import fcntl  # not available on every system that can open local models

    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            logging.log_first_n(logging.WARNING, "Another process fetches %s; waiting for it.", 1, handle)
        except OSError:
            return False  # the atomic rename is enough there
        if time.monotonic() >= end:
            raise UserError(
                f"another process has been fetching {handle} for {_PATIENCE / 60:.0f} minutes (it holds {path}); "
                "wait until it is done, or end it."
            )
        time.sleep(_PAUSE)
