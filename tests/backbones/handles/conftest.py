"""No network but what a test brings, an empty cache, and a module as an archive."""

from __future__ import annotations

import pytest

from estimator_tl.backbones.fetching import downloads
from tests.backbones.handles.serving import Response, pack, unreachable


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network that a test does not bring."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TFHUB_MODEL_LOAD_FORMAT", raising=False)
    monkeypatch.setattr(downloads, "check_reachable", unreachable)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def packed(hub_module, tmp_path_factory):
    return pack(hub_module.handle, tmp_path_factory.mktemp("packed") / "tiny.tar.gz")


@pytest.fixture
def served(packed, monkeypatch):
    """Answers with the archive; returns the addresses that were asked for."""
    asked = []

    def answer(address):
        asked.append(address)
        return Response(packed.read_bytes(), packed.stat().st_size)

    monkeypatch.setattr(downloads, "open_address", answer)
    return asked
