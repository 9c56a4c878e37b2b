"""From an address to the folder of a module: fetched once, whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import shutil
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from estimator_tl.backbones.fetching import downloads, handles
from estimator_tl.compat import hub, tf
from estimator_tl.errors import UserError
from tests.backbones.handles.serving import URL, Response, contents, modules, pack


def test_address_is_fetched_once(served, hub_module, cache):
    folder = handles.resolve(URL)
    assert folder == handles.resolve(URL) == str(cache / hashlib.sha1(URL.encode()).hexdigest())
    assert served == [f"{URL}?tf-hub-format=compressed"]
    assert contents(folder) == contents(hub_module.handle)
    assert modules(cache) == [Path(folder).name]


@pytest.mark.parametrize(
    ("handle", "address"),
    [
        ("https://models.test/m/1?a=b", "https://models.test/m/1?a=b&tf-hub-format=compressed"),
        ("https://models.test/m.tar.gz?signature=a%2Fb", "https://models.test/m.tar.gz?signature=a%2Fb"),
        ("https://hub.tensorflow.google.cn/a/m/1", "https://gcs.tensorflow.google.cn/tfhub-modules/a/m/1.tar.gz"),
    ],
)
def test_address_that_is_asked_for(served, handle, address):
    handles.resolve(handle)
    assert served == [address]


@pytest.mark.parametrize("checked", [True, False])
def test_connection_is_checked_and_cannot_hang(monkeypatch, checked):
    contexts = []

    class Handler(urllib.request.HTTPSHandler):
        def __init__(self, context):
            contexts.append(context)
            super().__init__(context=context)

    monkeypatch.setenv("TFHUB_DISABLE_CERT_VALIDATION", "false" if checked else "true")
    monkeypatch.setattr(downloads, "check_reachable", lambda host: None)
    monkeypatch.setattr(urllib.request, "HTTPSHandler", Handler)
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", lambda self, address, timeout: timeout)
    assert 0 < downloads.open_address(URL) < 60
    assert (contexts[0].verify_mode, contexts[0].check_hostname) == (ssl.CERT_REQUIRED * checked, checked)


def test_hub_finds_what_was_fetched(served):
    folder = handles.resolve(URL)
    assert hub.resolve(URL) == folder


def test_uncompressed_modules_are_copied_from_their_bucket(hub_module, cache, monkeypatch):
    location = "gs://bucket/tiny/1"
    monkeypatch.setenv("TFHUB_MODEL_LOAD_FORMAT", "UNCOMPRESSED")
    monkeypatch.setattr(downloads, "list_files", lambda where: dict.fromkeys(contents(hub_module.handle), (1, 1)))
    copies = []

    def copy(source, target):
        copies.append(source)
        shutil.copy(source.replace(location, hub_module.handle), target)

    monkeypatch.setattr(tf.io.gfile, "copy", copy)

    def answer(address):
        assert address == f"{URL}?tf-hub-format=uncompressed"
        raise urllib.error.HTTPError(address, 303, "See other", {}, io.BytesIO(location.encode()))

    monkeypatch.setattr(downloads, "open_address", answer)
    assert contents(handles.resolve(URL)) == contents(hub_module.handle)
    assert f"{location}/saved_model.pb" in copies
    monkeypatch.setattr(downloads, "open_address", lambda address: Response(b"<html>"))
    with pytest.raises(UserError, match="no uncompressed form.*TFHUB_MODEL_LOAD_FORMAT"):
        handles.resolve(f"{URL}0")
    monkeypatch.setenv("TFHUB_MODEL_LOAD_FORMAT", "UNCOMPRESED")
    with pytest.raises(UserError, match="did you mean 'UNCOMPRESSED'"):
        handles.resolve(f"{URL}0")


def test_lost_connection_leaves_nothing(packed, cache, monkeypatch):
    whole = packed.read_bytes()
    monkeypatch.setattr(downloads, "open_address", lambda address: Response(whole[:1000], len(whole)))
    with pytest.raises(UserError, match="lost after 1,000 of"):
        handles.resolve(URL)
    assert not modules(cache)


def test_answer_that_is_no_archive(cache, monkeypatch):
    monkeypatch.setattr(downloads, "open_address", lambda address: Response(b"<html>Log in</html>"))
    with pytest.raises(UserError, match="neither a tar nor a zip archive"):
        handles.resolve(URL)
    assert not modules(cache)


def test_module_without_a_saved_model(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "readme").write_text("x")
    archive = pack(tmp_path / "m", tmp_path / "m.tgz")
    monkeypatch.setattr(downloads, "open_address", lambda address: Response(archive.read_bytes()))
    with pytest.raises(UserError, match="holds no saved_model.pb"):
        handles.resolve(URL)


@contextlib.contextmanager
def server(handler):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_real_server(packed, hub_module, monkeypatch):
    with server(functools.partial(Quiet, directory=str(packed.parent))) as address:
        here = lambda asked: urllib.request.urlopen(asked.replace("https://models.test", address))  # noqa: E731
        monkeypatch.setattr(downloads, "open_address", here)
        assert contents(handles.resolve("https://models.test/tiny.tar.gz")) == contents(hub_module.handle)
        with pytest.raises(UserError, match="answers 404 File not found.*check"):
            handles.resolve("https://models.test/nothing")


def test_redirects_stay_encrypted():
    class Elsewhere(Quiet):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

    with server(Elsewhere) as address:
        opener = urllib.request.build_opener(downloads.SecureRedirects)
        with pytest.raises(urllib.error.URLError, match="not encrypted"):
            opener.open(address)
