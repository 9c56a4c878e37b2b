"""Unpacks tar and zip archives of modules, and writes nothing outside of the target folder."""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
from typing import IO

from estimator_tl.errors import SOURCE, UserError

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
_CHUNK = 1 << 20
_BLOCK = 512
_REMEDY = "make the archive of the module's own files"


def is_archive(name: str) -> bool:
    """Returns whether a path or a URL has the suffix of an archive."""
    return name.lower().endswith(SUFFIXES)


def unpack(file: str, folder: str) -> None:
    """Unpacks an archive completely, or raises an error.

    A module has only files and folders, so links and devices are refused, wherever they point. Owners and permissions
    in the archive are ignored.

    Args:
      file: a tar file, compressed or not, or a zip file; its content tells which.
      folder: an empty folder. After an error it may hold a part of the archive.

    Raises:
      UserError: the file is not an archive, is damaged, or has members that do not belong into a module.
    """
    try:
        if zipfile.is_zipfile(file):
            _unpack_zip(file, folder)
        elif tarfile.is_tarfile(file):
            _unpack_tar(file, folder)
        else:
            raise UserError(f"{SOURCE} is neither a tar nor a zip archive of a module; check where it leads.")
    except UserError:
        raise
    except Exception as error:  # each format and each compression has other exceptions
        raise UserError(f"{SOURCE} cannot be unpacked ({str(error) or 'it is cut off'}); get it again.") from error


def inside(folder: str, name: str) -> str:
    """Returns the path of an archive's member below a folder.

    Raises:
      UserError: the path would be outside of the folder.
    """
    normal = posixpath.normpath(name)
    if normal.startswith("/") or normal.split("/")[0] == ".." or "\0" in normal or "\\" in normal:
        raise UserError(f"{SOURCE} holds {name!r}, which would be written outside of its folder; {_REMEDY}.")
    return os.path.join(folder, *normal.split("/"))


def module_folder(folder: str) -> str:
    """Returns the folder of the module in an unpacked archive: `folder`, or the only folder in it with a module."""
    if holds_module(folder):
        return folder
    inner = [entry.path for entry in os.scandir(folder) if entry.is_dir() and holds_module(entry.path)]
    return inner[0] if len(inner) == 1 else folder


def holds_module(folder: str) -> bool:
    """Returns whether a folder is a SavedModel or a TF1 Hub module."""
    return any(os.path.exists(os.path.join(folder, f"saved_model.{suffix}")) for suffix in ("pb", "pbtxt"))


def _unpack_tar(file: str, folder: str) -> None:
    with tarfile.open(file) as archive:
        for member in archive:
            path = inside(folder, member.name)
            if member.isdir():
                os.makedirs(path, exist_ok=True)
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise _not_a_file(member.name)
            with content:
                _write(content, path)
        _check_end(archive)


def _check_end(archive: tarfile.TarFile) -> None:
    """Checks that the archive has its end marker: a file that is cut between two members reads as a shorter archive."""
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(_BLOCK) != bytes(_BLOCK):
        raise EOFError
    while stream.read(_CHUNK):  # reads on to the checksum of the compression
        pass


def _unpack_zip(file: str, folder: str) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            path = inside(folder, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _not_a_file(member.filename)
            if member.is_dir():
                os.makedirs(path, exist_ok=True)
                continue
            with archive.open(member) as content:
                _write(content, path)


def _write(content: IO[bytes], path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "xb") as stream:
        shutil.copyfileobj(content, stream, _CHUNK)


def _not_a_file(name: str) -> UserError:
    return UserError(f"{SOURCE} holds {name!r}, which is a link or a device, not a file or a folder; {_REMEDY}.")
