"""Archives of modules: tar and zip files, unpacked so that nothing lands outside of the folder given."""

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
    """True where a path or an address ends as archives do."""
    return name.lower().endswith(SUFFIXES)


def unpack(file: str, folder: str) -> None:
    """Unpacks an archive, whole or with an error.

    Files and folders are all that a module is made of, so links and devices are refused wherever they point; the
    archive's owners and permissions are left out.

    Args:
      file: a tar file, compressed or not, or a zip file; its content says which.
      folder: an empty folder. Where this fails, it may hold a part.

    Raises:
      UserError: it is no archive, a damaged one, or one with members that do not belong into a module.
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
    except Exception as error:  # each format and each compression has its own
        raise UserError(f"{SOURCE} cannot be unpacked ({str(error) or 'it is cut off'}); get it again.") from error


def inside(folder: str, name: str) -> str:
    """Returns where a member with this name belongs below a folder.

    Raises:
      UserError: it would be outside.
    """
    normal = posixpath.normpath(name)
    if normal.startswith("/") or normal.split("/")[0] == ".." or "\0" in normal or "\\" in normal:
        raise UserError(f"{SOURCE} holds {name!r}, which would be written outside of its folder; {_REMEDY}.")
    return os.path.join(folder, *normal.split("/"))


def module_folder(folder: str) -> str:
    """Returns the folder of the module in what was unpacked: `folder`, or the one that holds everything in it."""
    inner = [entry.path for entry in os.scandir(folder) if entry.is_dir() and holds_module(entry.path)]
    return inner[0] if len(inner) == 1 and not holds_module(folder) else folder


def holds_module(folder: str) -> bool:
    """True where a folder is a SavedModel or a TF1 Hub module."""
    return any(os.path.exists(os.path.join(folder, f"saved_model.{suffix}")) for suffix in ("pb", "pbtxt"))


def _unpack_tar(file: str, folder: str) -> None:
    with tarfile.open(file) as archive:
        for member in archive:
            place = inside(folder, member.name)
            if member.isdir():
                os.makedirs(place, exist_ok=True)
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise _no_file(member.name)
            with content:
                _write(content, place)
        _check_end(archive)


def _check_end(archive: tarfile.TarFile) -> None:
    """Checks that the archive has its end: a file that is cut between two members reads as a shorter one."""
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(_BLOCK) != bytes(_BLOCK):
        raise EOFError
    while stream.read(_CHUNK):  # to the checksum of the compression
        pass


def _unpack_zip(file: str, folder: str) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            place = inside(folder, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _no_file(member.filename)
            if member.is_dir():
                os.makedirs(place, exist_ok=True)
                continue
            with archive.open(member) as content:
                _write(content, place)


def _write(content: IO[bytes], place: str) -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "xb") as stream:
        shutil.copyfileobj(content, stream, _CHUNK)


def _no_file(name: str) -> UserError:
    return UserError(f"{SOURCE} holds {name!r}, which is a link or a device, not a file or a folder; {_REMEDY}.")
