"""One process, or one cluster by its chief, owns a run directory while it trains."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from estimator_tl.errors import UserError

LOCK = "train.lock"
_BEAT_SECS = 5.0
_SILENT_SECS = 20.0  # network file systems show a change with a delay
_LOOK_SECS = 0.5
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextlib.contextmanager
def owning(model_dir: str) -> Iterator[None]:
    """A block in which no other process trains in a run directory, which is made where it is missing.

    The operating system's lock on a file there ends with its process, however that ends. It may not reach other
    machines on a shared file system, so the owner also touches the file every few seconds; where the file was last
    written on another machine, this waits to see whether that goes on. What the block leaves behind is the directory
    only if something is in it.

    Args:
      model_dir: the run directory. An address such as ``gs://...`` is not locked.

    Raises:
      UserError: another process owns the directory, or it cannot be written.
    """
    if "://" in model_dir:
        yield
        return
    new = _make_folders(Path(model_dir))
    try:
        stream = _acquire(Path(model_dir, LOCK))
        stopped = threading.Event()
        beating = threading.Thread(target=_beat, args=(stream, stopped), daemon=True)
        beating.start()
        try:
            yield
        finally:
            stopped.set()
            beating.join()
            with contextlib.suppress(OSError):
                os.unlink(stream.name)
            stream.close()
    finally:
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _make_folders(folder: Path) -> list[Path]:
    """Makes a folder with those above it; returns the new ones, the innermost first."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return new


def _acquire(path: Path) -> Any:
    """Returns the open and locked file."""
    while True:
        try:
            stream = open(path, "a+b", buffering=0)  # noqa: SIM115  it stays open while the run is owned
        except OSError as error:
            raise _unwritable(path.parent, error) from error
        try:
            locks = _lock(stream)
            if not _is_at(stream, path):  # its owner has left between our opening and locking it
                stream.close()
                continue
            owner = _owner(path)
            if owner and not (locks and owner.get("machine") == _machine()):
                _wait_for_silence(path, owner)
            stream.truncate(0)
            stream.write(json.dumps(_self()).encode() + b"\n")
        except BaseException:
            stream.close()
            raise
        return stream


def _lock(stream: Any) -> bool:
    """Locks a file; returns False where the file system has no locks, so that only the owner's beat counts.

    Raises:
      UserError: another process has it.
    """
    try:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        path = Path(stream.name)
        raise _owned(path, _owner(path)) from error
    except (ImportError, OSError):
        return False
    return True


def _is_at(stream: Any, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _wait_for_silence(path: Path, owner: dict[str, Any]) -> None:
    """Waits until an owner that no lock tells of has been silent for long enough.

    Raises:
      UserError: it is not silent.
    """
    beat = path.stat().st_mtime_ns
    until = time.monotonic() + _SILENT_SECS
    while time.monotonic() < until:
        time.sleep(_LOOK_SECS)
        with open(path, "rb") as again:  # network file systems look for changes when a file is opened
            if os.fstat(again.fileno()).st_mtime_ns != beat:
                raise _owned(path, owner)


def _beat(stream: Any, stopped: threading.Event) -> None:
    while not stopped.wait(_BEAT_SECS):
        with contextlib.suppress(OSError):
            os.utime(stream.fileno())


def _self() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since, "machine": _machine()}


def _machine() -> str:
    """Returns what tells this machine from others; its containers have several host names and share its locks."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return socket.gethostname()


def _owner(path: Path) -> dict[str, Any]:
    try:
        owner: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return owner


def _owned(path: Path, owner: dict[str, Any]) -> UserError:
    who = "another process"
    if owner:
        who = f"process {owner.get('pid')} on {owner.get('host')}, since {owner.get('since')}"
    return UserError(f"{path.parent} is being trained by {who}; wait for its end, end it, or use another --model_dir.")


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to {folder} ({error.strerror}); choose a folder that you may write.")
