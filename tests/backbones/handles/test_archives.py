"""From an archive to the folder of a module."""

from __future__ import annotations

import os
import tarfile
import zipfile

import pytest

import estimator_tl as etl
from estimator_tl.backbones.fetching import downloads, handles
from estimator_tl.errors import UserError
from tests.backbones.handles.serving import URL, Response, contents, modules, pack


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
