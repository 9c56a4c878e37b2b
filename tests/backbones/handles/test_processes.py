"""Several processes, and processes that die, over one cache of modules."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import estimator_tl as etl
from estimator_tl.backbones.fetching import downloads, handles, module_cache
from estimator_tl.errors import UserError
from tests.backbones.handles.serving import URL, Response, contents, modules

KILLED = """
import os, signal, sys
from estimator_tl.backbones.fetching import downloads
from estimator_tl.backbones.fetching import handles

class Cut:
    headers = {}
    def __init__(self): self.left = [b"x" * 1000]
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def read(self, size):
        if self.left:
            return self.left.pop()
        os.kill(os.getpid(), signal.SIGKILL)

downloads.open_address = lambda address: Cut()
handles.resolve(sys.argv[1])
"""


def test_killed_download_is_begun_anew(served, hub_module, cache):
    done = subprocess.run([sys.executable, "-c", KILLED, URL], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert len(modules(cache)) == 1
    assert modules(cache)[0].endswith(".tmp")
    folder = handles.resolve(URL)
    assert contents(folder) == contents(hub_module.handle)
    assert modules(cache) == [Path(folder).name]


def test_stale_lock_of_hub_is_not_waited_for(served, cache):
    """Hub in a process that was killed leaves its lock and a part of the module."""
    key = hashlib.sha1(URL.encode()).hexdigest()
    (cache / f"{key}.0123.tmp").mkdir(parents=True)
    (cache / f"{key}.0123.tmp" / "saved_model.pb").write_bytes(b"half")
    (cache / f"{key}.lock").write_text("host.1.0123")
    (cache / key).mkdir()  # and an empty folder
    assert etl.backbone(URL).structure.variables
    assert len(served) == 1


def test_two_at_once_fetch_once(served, packed, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    answer = downloads.open_address

    def slow(address):
        begun.set()
        assert go_on.wait(60)
        return answer(address)

    monkeypatch.setattr(downloads, "open_address", slow)
    monkeypatch.setattr(
        module_cache.time, "sleep", lambda seconds: go_on.set()
    )  # the second waits: the first may go on
    found = []
    threads = [threading.Thread(target=lambda: found.append(handles.resolve(URL))) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len(set(found)) == 1
    assert len(served) == 1


def test_lock_that_is_held_for_long(served, cache, monkeypatch):
    cache.mkdir()
    monkeypatch.setattr(module_cache, "_PATIENCE", 0.0)
    with open(cache / f"{module_cache.key_of(URL)}.estimator_tl.lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process has been fetching"):
            handles.resolve(URL)
    assert handles.resolve(URL)


def test_hub_that_was_faster_wins(hub_module, packed, cache, monkeypatch):
    def answer(address):
        shutil.copytree(hub_module.handle, cache / module_cache.key_of(URL))
        return Response(packed.read_bytes())

    monkeypatch.setattr(downloads, "open_address", answer)
    assert contents(handles.resolve(URL)) == contents(hub_module.handle)
    assert modules(cache) == [module_cache.key_of(URL)]


def test_cache_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="cannot be written.*set TFHUB_CACHE_DIR"):
        handles.resolve(URL)
    monkeypatch.setenv("TFHUB_CACHE_DIR", "gs://bucket/cache")
    with pytest.raises(UserError, match="read from a local folder"):
        handles.resolve(URL)
