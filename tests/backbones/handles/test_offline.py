"""Addresses where there is no network, and folders on other file systems."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import urllib.error
import urllib.request

import pytest

from estimator_tl.backbones.fetching import downloads, handles, module_cache
from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from tests.backbones.handles.serving import KAGGLE, URL, contents, modules, unreachable

CHECK_REACHABLE = downloads.check_reachable


@pytest.mark.parametrize(
    ("handle", "hint"),
    [
        ("https://tfhub.dev/someone/tiny/1", "tfhub.dev leads to kaggle.com today"),
        (URL, "no network to models.test"),
        (KAGGLE, "pip install 'estimator_tl[kaggle]'"),
        ("gs://bucket/tiny", "no network to www.googleapis.com"),
        ("gs://bucket/tiny.tar.gz", "no network to www.googleapis.com"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "train"])
def test_offline(capsys, cache, tmp_path, pictures, handle, hint, command):
    data = ["--train_data", str(pictures), "--model_dir", str(tmp_path / "run")] if command == "train" else []
    assert main([command, f"--backbone={handle}", *data]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert hint in line
    assert f"Hub's cache is {cache}" in line
    assert hashlib.sha1(handle.encode()).hexdigest() in line
    assert not (tmp_path / "run").exists()


def test_what_does_not_answer_is_given_up():
    waiting = threading.Event()
    with pytest.raises(TimeoutError, match="no answer from nowhere within 0.01 seconds"):
        downloads.within(0.01, waiting.wait, "nowhere")
    waiting.set()
    assert downloads.within(60, lambda: 5, "here") == 5
    with pytest.raises(OSError, match="no network"):
        downloads.within(60, lambda: unreachable("x"), "here")


def test_probe_comes_before_the_request(monkeypatch):
    """What would be tried for minutes is not begun, and behind a proxy there is nothing to probe."""
    tried = []

    def connect(address, timeout):
        tried.append(address)
        raise OSError("no route")

    monkeypatch.setattr(downloads, "check_reachable", CHECK_REACHABLE)
    monkeypatch.setattr(downloads.socket, "create_connection", connect)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    for handle, host in ((URL, "models.test"), ("gs://bucket/m", "www.googleapis.com")):
        with pytest.raises(UserError, match="no route"):
            handles.resolve(handle)
        assert tried.pop() == (host, 443)
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "proxy:1"})
    CHECK_REACHABLE("models.test")
    assert not tried


def test_run_of_an_address_is_used_from_the_cache(hub_module, pictures, cache, tmp_path, capsys):
    shutil.copytree(hub_module.handle, cache / module_cache.key_of(URL))
    run = f"--model_dir={tmp_path / 'run'}"
    flags = [f"--backbone={URL}", f"--train_data={pictures}", run, "--train_steps=2", "--batch_size=4"]
    assert main(["train", *flags]) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["model"]["backbone"] == URL
    assert main(["evaluate", run]) == 0
    assert main(["inspect", f"--backbone={URL}"]) == 0
    assert URL in capsys.readouterr().out
    shutil.rmtree(cache)
    assert main(["evaluate", run]) == 2
    assert "cannot be fetched" in capsys.readouterr().err


def test_folder_on_another_file_system(hub_module, tmp_path, cache):
    shutil.copytree(hub_module.handle, tmp_path / "m")
    handle = f"file://{tmp_path}/m/"
    first = handles.resolve(handle)
    assert contents(first) == contents(hub_module.handle)
    assert handles.resolve(handle) == first
    (tmp_path / "m" / "extra.txt").write_text("x")
    second = handles.resolve(handle)
    assert contents(second) == contents(tmp_path / "m")
    assert len(modules(cache)) == 2
    os.utime(first, (1, 1))
    shutil.rmtree(tmp_path / "m")
    assert handles.resolve(handle) == second


def test_archive_on_another_file_system(packed, hub_module):
    assert contents(handles.resolve(f"file://{packed}")) == contents(hub_module.handle)


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        ("nosuch://bucket/m", "not implemented.*copy it to a local folder"),
        ("ram://nowhere/m", "there is no such folder.*check it"),
    ],
)
def test_file_systems_that_do_not_help(handle, message):
    with pytest.raises(UserError, match=message):
        handles.resolve(handle)


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.PermissionDeniedError(None, None, "denied\n{body}"),
        tf.errors.UnauthenticatedError(None, None, "who?"),
        tf.errors.FailedPreconditionError(None, None, "HTTP response code 401 with body"),
    ],
)
def test_bucket_without_permission(monkeypatch, error):
    def refuse(location):
        raise error

    monkeypatch.setattr(downloads, "check_reachable", lambda host: None)
    monkeypatch.setattr(tf.io.gfile, "exists", refuse)
    with pytest.raises(UserError, match="GOOGLE_APPLICATION_CREDENTIALS.*check it"):
        handles.resolve("gs://bucket/m")
