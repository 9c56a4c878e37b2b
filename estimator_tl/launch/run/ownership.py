"""A lock on the run directory: one process, or the chief of one cluster, owns it during training."""

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
_HEARTBEAT_SECS = 5.0
_SILENT_SECS = 20.0  # network file systems show a change with a delay
_LOOK_SECS = 0.5
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextlib.contextmanager
def owning(model_dir: str) -> Iterator[None]:
    """A block in which no other process trains in a run directory; makes the directory if it is missing.

    The operating system locks a file in the directory, and releases the lock when the process ends for any reason. On a
    shared file system other machines may not see the lock, so the owner also touches the file every few seconds. If
    another machine wrote the file last, this process waits to see whether the file is still touched. At the end an
    empty directory that the block made is removed.

    Args:
      model_dir: the run directory. An address such as ``gs://...`` is not locked.

    Raises:
      UserError: another process owns the directory, or the directory cannot be written.
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
    """Makes a folder with its parents; returns the new folders, the innermost first."""
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
            if not _is_at(stream, path):  # the owner removed the file between open and lock
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
    """Locks a file; returns False if the file system has no locks, so that only the heartbeat counts.

    Raises:
      UserError: another process holds the lock.
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
    """Waits until an owner without a visible lock has sent no heartbeat for long enough.

    Raises:
      UserError: the owner sent a heartbeat.
    """
    last_heartbeat = path.stat().st_mtime_ns
    deadline = time.monotonic() + _SILENT_SECS
    while time.monotonic() < deadline:
        time.sleep(_LOOK_SECS)
        with open(path, "rb") as reopened:  # network file systems refresh a file when it is opened
            if os.fstat(reopened.fileno()).st_mtime_ns != last_heartbeat:
                raise _owned(path, owner)


def _beat(stream: Any, stopped: threading.Event) -> None:
    while not stopped.wait(_HEARTBEAT_SECS):
        with contextlib.suppress(OSError):
            os.utime(stream.fileno())


def _self() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since, "machine": _machine()}


def _machine() -> str:
    """Returns an id of this machine; host names do not serve, as its containers have several and share its locks."""
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
    process = "another process"
    if owner:
        process = f"process {owner.get('pid')} on {owner.get('host')}, since {owner.get('since')}"
    return UserError(
        f"{path.parent} is being trained by {process}; wait for its end, end it, or use another --model_dir."
    )


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to {folder} ({error.strerror}); choose a folder that you may write.")
