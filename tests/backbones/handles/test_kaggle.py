"""Kaggle Models, with Kaggle's client and without."""

from __future__ import annotations

import shutil
import sys

import pytest

from estimator_tl.backbones.fetching import downloads, handles, module_cache
from estimator_tl.errors import UserError
from tests.backbones.handles.serving import KAGGLE, contents

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
