"""Downloads modules by https with TensorFlow Hub's protocol, and through TensorFlow's file systems (gs://).

https://www.tensorflow.org/hub/hosting
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from estimator_tl import compat
from estimator_tl.backbones.fetching import archives
from estimator_tl.tf_internals import hub_settings

_CHUNK = 1 << 20
_CONNECT_SECONDS, _REACH_SECONDS = 4.0, 15.0  # for one of a host's addresses, and for all of them
_READ_SECONDS = 30.0
#: The host that TensorFlow reads the files of a bucket from.
_STORAGE_HOST = "www.googleapis.com"
# Hub's mirror in China does not speak the protocol; its modules are archives in a bucket.
_MIRROR, _MIRROR_ARCHIVE = (
    "https://hub.tensorflow.google.cn/",
    "https://gcs.tensorflow.google.cn/tfhub-modules/{}.tar.gz",
)

_T = TypeVar("_T")


class NotFetchedError(Exception):
    """A module cannot be fetched: no network, no such module, no permission. The text is the reason, in one line.

    Attributes:
      answered: whether a server answered, so that another network would not help.
    """

    def __init__(self, text: str, answered: bool = False):
        super().__init__(text)
        self.answered = answered


def fetch_https(handle: str, folder: str) -> None:
    """Downloads a module into an empty folder.

    Raises:
      NotFetchedError: the module cannot be fetched.
      UserError: the download is not the archive of a module.
    """
    if hub_settings.reads_uncompressed() and not archives.is_archive(urllib.parse.urlsplit(handle).path):
        location = _bucket_of(handle)
        copy(location, list_files(location), folder)
        return
    file = f"{folder}.archive"
    try:
        with open_address(_archive_address(handle)) as response, open(file, "wb") as stream:
            _save(response, stream)
    except (OSError, http.client.HTTPException) as error:
        raise _not_fetched(error) from error
    archives.unpack(file, folder)


def _save(response: Any, stream: Any) -> None:
    size = 0
    while chunk := response.read(_CHUNK):
        stream.write(chunk)
        size += len(chunk)
    expected = response.headers.get("Content-Length")
    if expected is not None and size != int(expected):  # read(n) does not raise where the connection is lost
        raise OSError(f"the connection was lost after {size:,} of {int(expected):,} bytes")


def _archive_address(handle: str) -> str:
    if handle.startswith(_MIRROR):
        return _MIRROR_ARCHIVE.format(handle[len(_MIRROR) :])
    if archives.is_archive(urllib.parse.urlsplit(handle).path):  # it may be a signed URL, which must not change
        return handle
    return _with_format(handle, "compressed")


def _with_format(handle: str, hub_format: str) -> str:
    parts = urllib.parse.urlsplit(handle)
    query = [*urllib.parse.parse_qsl(parts.query), ("tf-hub-format", hub_format)]
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))


def _bucket_of(handle: str) -> str:
    """Returns the folder with the uncompressed module that a server names."""
    try:
        with open_address(_with_format(handle, "uncompressed")):
            raise NotFetchedError("its server has no uncompressed form of it; leave TFHUB_MODEL_LOAD_FORMAT out", True)
    except urllib.error.HTTPError as error:
        if error.code == 303:
            location = error.read().decode(errors="replace").strip()
            if location.startswith("gs://"):
                return location
        raise _not_fetched(error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _not_fetched(error) from error


class SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https addresses only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Returns the next request.

        Raises:
          URLError: the redirect leads to an address that is not https.
        """
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"it leads to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_address(address: str) -> Any:
    """Opens an https address for reading, with time limits.

    Raises:
      OSError: the server cannot be reached, or answers with an error.
    """
    check_reachable(str(urllib.parse.urlsplit(address).hostname))
    context = ssl.create_default_context()
    if not hub_settings.checks_certificates():
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(SecureRedirects, urllib.request.HTTPSHandler(context=context))
    return opener.open(address, timeout=_READ_SECONDS)


def check_reachable(host: str) -> None:
    """Checks within seconds that a host can be reached, where TensorFlow and other clients would try for minutes.

    Raises:
      OSError: the host does not answer.
    """
    if "https" in urllib.request.getproxies():
        return
    within(_REACH_SECONDS, lambda: socket.create_connection((host, 443), _CONNECT_SECONDS).close(), host)


def within(seconds: float, call: Callable[[], _T], name: str) -> _T:
    """Runs a call with a time limit; returns its result, or raises its exception.

    Args:
      seconds: the limit.
      call: runs in a thread.
      name: who is called, for the message.

    Raises:
      TimeoutError: the call takes longer; its thread keeps running.
    """
    outcome: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:  # raised again below
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer from {name} within {seconds:g} seconds")
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def list_files(location: str) -> Mapping[str, tuple[int, int]]:
    """Returns size and modification time of all files in a folder on a TensorFlow file system, or of an archive there.

    Returns:
      (bytes, nanoseconds) by name below the folder; an archive has the name "".

    Raises:
      NotFetchedError: there are no files, or they cannot be read.
    """
    files = compat.tf.io.gfile
    try:
        if location.startswith("gs://"):
            check_reachable(_STORAGE_HOST)
        if not files.exists(location):  # raises an error with the reason, which `walk` does not
            raise NotFetchedError("there is no such folder", answered=True)
        if archives.is_archive(location):
            names = [""]
        else:
            names = [
                f"{folder.rstrip('/')}/{name}"[len(location) + 1 :]
                for folder, _, file_names in files.walk(location, onerror=_raise)
                for name in file_names
            ]
        stats = {name: files.stat(f"{location}/{name}" if name else location) for name in sorted(names)}
    except (OSError, compat.tf.errors.OpError) as error:
        raise _not_fetched(error) from error
    if not stats:
        raise NotFetchedError("there are no files", answered=True)
    return {name: (int(stat.length), int(stat.mtime_nsec)) for name, stat in stats.items()}


def _raise(error: Exception) -> None:
    raise error


def copy(location: str, files: Mapping[str, Any], folder: str) -> None:
    """Copies the files from `list_files` into an empty folder; unpacks an archive.

    Raises:
      NotFetchedError: a file cannot be read.
      UserError: a file's path would be outside of the folder, or the archive is not one.
    """
    try:
        if "" in files:
            compat.tf.io.gfile.copy(location, f"{folder}.archive")
            archives.unpack(f"{folder}.archive", folder)
            return
        for name in files:
            path = archives.inside(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            compat.tf.io.gfile.copy(f"{location}/{name}", path)
    except (OSError, compat.tf.errors.OpError) as error:
        raise _not_fetched(error) from error


def _not_fetched(error: Exception) -> NotFetchedError:
    """Returns the error for a failure of a server or a TensorFlow file system, with advice."""
    text = reason(error)
    errors = compat.tf.errors
    if isinstance(error, errors.UnimplementedError):
        return NotFetchedError(f"{text}; this TensorFlow cannot read it: copy it to a local folder", answered=True)
    is_denied = isinstance(error, (errors.PermissionDeniedError, errors.UnauthenticatedError))
    if is_denied or any(f"HTTP response code {code}" in text for code in (401, 403)):
        remedy = "log in with GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default login`"
        return NotFetchedError(f"{text}; {remedy}", answered=True)
    return NotFetchedError(text, isinstance(error, (urllib.error.HTTPError, errors.NotFoundError)))


def reason(error: BaseException) -> str:
    """Returns an error's text in one line."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    words = str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error).split()
    return " ".join(words)[:300] or type(error).__name__
