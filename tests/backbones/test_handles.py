"""From a handle to the folder of a module: archives, addresses, buckets, Kaggle Models, and their cache."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

import estimator_tl as etl
from estimator_tl.backbones import downloads, handles, module_cache
from estimator_tl.cli.main import main
from estimator_tl.compat import hub, tf
from estimator_tl.errors import UserError

URL = "https://models.test/tiny/1"
CHECK_REACHABLE = downloads.check_reachable
KAGGLE = "https://www.kaggle.com/models/someone/tiny/tensorFlow2/small/1"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network that a test does not bring."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TFHUB_MODEL_LOAD_FORMAT", raising=False)
    monkeypatch.setattr(downloads, "check_reachable", unreachable)
    return tmp_path / "cache"


def unreachable(host):
    raise OSError(f"no network to {host}")


def pack(folder, path, root="."):
    """Makes an archive of a module, its kind by its name."""
    files = [(file, f"{root}/{file.relative_to(folder)}") for file in sorted(Path(folder).rglob("*"))]
    if str(path).endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for file, name in files:
                archive.write(file, name)
    else:
        with tarfile.open(path, "w:gz" if str(path).endswith("gz") else "w") as archive:
            for file, name in files:
                archive.add(file, name, recursive=False)
    return path


@pytest.fixture(scope="module")
def packed(hub_module, tmp_path_factory):
    return pack(hub_module.handle, tmp_path_factory.mktemp("packed") / "tiny.tar.gz")


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def modules(cache):
    """The folders in the cache, half ones included."""
    return sorted(p.name for p in cache.iterdir() if p.is_dir())


class Response(io.BytesIO):
    """What a server answers."""

    def __init__(self, content, length=None):
        super().__init__(content)
        self.headers = {} if length is None else {"Content-Length": str(length)}


@pytest.fixture
def served(packed, monkeypatch):
    """Answers with the archive; returns the addresses that were asked for."""
    asked = []

    def answer(address):
        asked.append(address)
        return Response(packed.read_bytes(), packed.stat().st_size)

    monkeypatch.setattr(downloads, "open_address", answer)
    return asked


# Archives.


@pytest.mark.parametrize("name", ["m.tar.gz", "m.tgz", "m.tar", "m.zip", "M.TAR.GZ"])
@pytest.mark.parametrize("root", [".", "some/folder/.."])
def test_local_archive(hub_module, tmp_path, name, root):
    archive = pack(hub_module.handle, tmp_path / name, root)
    assert contents(handles.resolve(str(archive))) == contents(hub_module.handle)


def test_local_archive_is_a_source_and_follows_its_content(hub_module, tf1_module, tmp_path, cache):
    archive = pack(hub_module.handle, tmp_path / "m.tgz", root="inner")
    backbone = etl.backbone(str(archive))
    assert len(backbone.structure.variables) == len(hub_module.values)
    assert backbone.digest() == etl.backbone(hub_module.handle).digest()
    pack(tf1_module.handle, archive)
    assert etl.backbone(str(archive)).kind == "TF1 Hub module"
    assert len(modules(cache)) == 2


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


BAD_MEMBERS = [
    member("../evil"),
    member("a/../../evil"),
    member("/tmp/estimator_tl_evil"),
    member("..\\evil"),
    member("evil", tarfile.SYMTYPE, "../outside"),
    member("evil", tarfile.SYMTYPE, "/etc/passwd"),
    member("evil", tarfile.LNKTYPE, "../outside"),
    member("evil", tarfile.CHRTYPE),
    member("evil", tarfile.FIFOTYPE),
]


@pytest.mark.parametrize("bad", BAD_MEMBERS, ids=lambda m: f"{m.name} {m.type.decode()}")
@pytest.mark.parametrize("fetched", [False, True])
def test_bad_members_are_refused(tmp_path, cache, monkeypatch, bad, fetched):
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(member("saved_model.pb"))
        tar.addfile(bad)
        tar.addfile(member("evil/file"))  # through a link, if there were one
    monkeypatch.setattr(downloads, "open_address", lambda address: Response(archive.read_bytes()))
    before = {p for p in tmp_path.rglob("*") if cache not in p.parents} | {cache}
    with pytest.raises(UserError) as caught:
        handles.resolve(URL if fetched else str(archive))
    assert repr(bad.name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {p for p in tmp_path.rglob("*") if cache not in p.parents} == before
    assert not modules(cache)
    assert not os.path.exists("/tmp/estimator_tl_evil")


@pytest.mark.parametrize(("name", "mode"), [("../evil", 0o100644), ("/evil", 0), ("evil", 0o120777)])
def test_bad_members_of_zip_files_are_refused(tmp_path, cache, name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("saved_model.pb", b"")
        archive.writestr(info, "../outside")
    with pytest.raises(UserError, match=f"holds '{name}'"):
        handles.resolve(str(tmp_path / "bad.zip"))
    assert not modules(cache)
    assert not (cache / "evil").exists()


def test_damaged_archives_are_refused(hub_module, tmp_path, cache):
    for suffix in ("tar.gz", "tar", "zip"):
        whole = pack(hub_module.handle, tmp_path / f"whole.{suffix}").read_bytes()
        cut = tmp_path / f"cut.{suffix}"
        for size in (len(whole) // 2, len(whole) - 6)[: 1 if suffix == "tar" else 2]:  # tar ends with padding
            cut.write_bytes(whole[:size])
            with pytest.raises(UserError, match="cannot be unpacked|neither a tar nor"):
                handles.resolve(str(cut))
    assert not modules(cache)


def test_archive_cut_between_two_members_is_refused(tmp_path, cache):
    """It reads as a shorter one: only the end that archives have is missing."""
    with tarfile.open(tmp_path / "whole.tar", "w") as tar:
        tar.addfile(member("saved_model.pb"))
        tar.addfile(member("variables/variables.index"))
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:512])
    with pytest.raises(UserError, match="cut off"):
        handles.resolve(str(tmp_path / "cut.tar"))
    assert not modules(cache)


# Addresses.


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


# Other processes.

KILLED = """
import os, signal, sys
from estimator_tl.backbones import downloads, handles

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


# Without a network.


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


# Other file systems.


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


# Kaggle Models.

CLIENT = """
import os
asked = []
print("kagglehub says hello")
def model_download(handle):
    asked.append(handle)
    print("Downloading")
    if os.environ.get("KAGGLE_FAILS"):
        raise RuntimeError("403 Client Error.\\nNo permission")
    return os.environ["KAGGLE_FOLDER"]
"""


@pytest.fixture
def client(tmp_path, monkeypatch, hub_module):
    """A stand-in for Kaggle's client."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "kagglehub.py").write_text(CLIENT)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "kagglehub", raising=False)
    monkeypatch.setenv("KAGGLE_FOLDER", hub_module.handle)
    yield
    sys.modules.pop("kagglehub", None)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("someone/tiny/tensorFlow2/small/1", "someone/tiny/tensorFlow2/small/1"),
        ("someone/tiny/TensorFlow1/small", "someone/tiny/tensorFlow1/small"),
        ("someone/tiny/tensorFlow2/small/3/?tfhub-redirect=true", "someone/tiny/tensorFlow2/small/3"),
        ("s/t/frameworks/tensorFlow2/variations/small/versions/2", "s/t/tensorFlow2/small/2"),
        ("s/t/frameworks/TensorFlow2/variations/small", "s/t/tensorFlow2/small"),
    ],
)
@pytest.mark.parametrize("network", [True, False])
def test_kaggle_client(client, hub_module, capfd, monkeypatch, path, model, network):
    if network:
        monkeypatch.setattr(downloads, "check_reachable", lambda host: None)
    assert handles.resolve(f"https://www.kaggle.com/models/{path}") == hub_module.handle
    assert sys.modules["kagglehub"].asked == [model]
    assert "Downloading" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("someone/tiny", "not the address of one model"),
        ("someone/tiny/tensorFlow2/small/newest", "not the address of one model"),
        ("someone/tiny/keras/small/1", "a model for keras; choose a variation for tensorFlow2"),
    ],
)
def test_kaggle_addresses_that_are_no_model(path, message):
    with pytest.raises(UserError, match=message):
        handles.resolve(f"https://www.kaggle.com/models/{path}")


def test_kaggle_client_that_fails(client, cache, monkeypatch):
    monkeypatch.setenv("KAGGLE_FAILS", "1")
    with pytest.raises(UserError, match=f"no network to www.kaggle.com; with a version.*Hub's cache is {cache}"):
        handles.resolve(KAGGLE.rpartition("/")[0])
    monkeypatch.setattr(downloads, "check_reachable", lambda host: None)
    with pytest.raises(UserError, match="403 Client Error. No permission.*; check it"):
        handles.resolve(KAGGLE)


def test_kaggle_without_client_is_read_as_hub_does(served, hub_module):
    assert contents(handles.resolve(KAGGLE)) == contents(hub_module.handle)
    assert served == [f"{KAGGLE}?tf-hub-format=compressed"]


def test_kaggle_model_in_hubs_cache_needs_no_client(client, hub_module, cache):
    shutil.copytree(hub_module.handle, cache / module_cache.key_of(KAGGLE))
    assert contents(handles.resolve(KAGGLE)) == contents(hub_module.handle)
    assert "kagglehub" not in sys.modules
