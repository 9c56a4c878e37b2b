"""The cache of fetched modules: TensorFlow Hub's folder and names, so that what Hub has fetched is found, and it finds.

A module appears in it by one rename when it is whole. Its lock is the kernel's, which goes with the process that held
it, however that ended. Hub's own lock is a file that outlives a killed process, and that Hub waits for for twenty
minutes; it is not asked here, as a rename needs no lock to be safe.
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

_OWN = ".estimator_tl"
_PATIENCE = 600.0
_PAUSE = 0.2


def place(key: str) -> str:
    """Returns the folder of the cache that belongs to a key, which need not exist.

    Raises:
      UserError: the cache is not a local folder.
    """
    cache = hub_settings.cache_folder()
    if "://" in cache:
        raise UserError(f"TFHUB_CACHE_DIR is {cache}, but modules are read from a local folder; set it to one.")
    return os.path.join(os.path.abspath(os.path.expanduser(cache)), key)


def key_of(handle: str) -> str:
    """Returns the name of a handle's folder, which is Hub's."""
    return hashlib.sha1(handle.encode("utf8")).hexdigest()


def find(key: str) -> str | None:
    """Returns the folder of a module that is in the cache; None where it is not."""
    folder = place(key)
    return folder if os.path.isdir(folder) and os.listdir(folder) else None


def holds(folder: str) -> bool:
    """True where a folder is in the cache."""
    cache = hub_settings.cache_folder()
    return "://" not in cache and os.path.abspath(folder).startswith(os.path.join(place(""), ""))


def entry(folder: str) -> str:
    """Returns the folder right in the cache that is, or holds, a folder in it."""
    cache = place("")
    return os.path.join(cache, os.path.relpath(os.path.abspath(folder), cache).split(os.sep)[0])


def newest(prefix: str) -> str | None:
    """Returns the folder of the last used among the modules whose key begins so; None where there is none."""
    found = [path for path in glob.glob(glob.escape(place(prefix)) + "*") if find(os.path.basename(path))]
    found = [path for path in found if _OWN not in os.path.basename(path)]
    return max(found, key=os.path.getmtime, default=None)


def fill(key: str, handle: str, fetch: Callable[[str], None]) -> str:
    """Returns the folder of a module, fetched if it is not in the cache.

    Args:
      key: its name in the cache.
      handle: what the user called it.
      fetch: fills the empty folder that it is given; may leave a part of a module there when it fails.

    Raises:
      UserError: the cache cannot be written, or is locked for long.
    """
    found = find(key)
    if found:
        return found
    folder = place(key)
    with locked(key, handle) as alone:
        if find(key):
            return folder
        if alone:  # so what is left here is of processes that were killed
            for leftover in glob.glob(f"{glob.escape(folder)}{_OWN}.*.tmp"):
                shutil.rmtree(leftover, ignore_errors=True)
        work = tempfile.mkdtemp(prefix=f"{key}{_OWN}.", suffix=".tmp", dir=os.path.dirname(folder))
        try:
            logging.info("Fetching %s into %s.", handle, folder)
            module = os.path.join(work, "module")
            os.mkdir(module)
            fetch(module)
            _move(module, folder)
            with open(f"{folder}.descriptor.txt", "w") as stream:  # as Hub does, for people who look into the cache
                stream.write(f"Module: {handle}\n")
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder


def _move(module: str, folder: str) -> None:
    try:
        os.rename(module, folder)
    except OSError:
        if not find(os.path.basename(folder)):  # else Hub, in another program, was faster
            raise


@contextlib.contextmanager
def locked(key: str, handle: str) -> Iterator[bool]:
    """Keeps other processes from fetching the same module in the meantime.

    Yields:
      Whether it does; False on file systems without locks.

    Raises:
      UserError: the cache cannot be written, or another process has the lock for long.
    """
    path = f"{place(key)}{_OWN}.lock"
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
    import fcntl  # not on every system that can open local models

    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            logging.log_first_n(logging.WARNING, "Another process fetches %s; waiting for it.", 1, handle)
        except OSError:
            return False  # the rename keeps modules whole there, too
        if time.monotonic() >= end:
            raise UserError(
                f"another process has been fetching {handle} for {_PATIENCE / 60:.0f} minutes (it holds {path}); "
                "wait until it is done, or end it."
            )
        time.sleep(_PAUSE)
