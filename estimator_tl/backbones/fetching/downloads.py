"""Modules from elsewhere: by https as TensorFlow Hub's protocol has it, and through TensorFlow's file systems (gs://).

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
_CONNECT_SECONDS, _REACH_SECONDS = 4.0, 15.0  # of one of a host's addresses, and of all of them
_READ_SECONDS = 30.0
#: Where TensorFlow asks for the files of a bucket.
_STORAGE_HOST = "www.googleapis.com"
# Hub's mirror in China does not speak the protocol; its modules are archives in a bucket.
_MIRROR, _MIRROR_ARCHIVE = (
    "https://hub.tensorflow.google.cn/",
    "https://gcs.tensorflow.google.cn/tfhub-modules/{}.tar.gz",
)

_T = TypeVar("_T")


class NotFetchedError(Exception):
    """A module cannot be had: no network, no such module, no permission. The text is the reason, in one line.

    Attributes:
      answered: whether a server was there, so that another network would be no better.
    """

    def __init__(self, why: str, answered: bool = False):
        super().__init__(why)
        self.answered = answered


def fetch_https(handle: str, folder: str) -> None:
    """Downloads a module into an empty folder.

    Raises:
      NotFetchedError: it cannot be had.
      UserError: what came is no module's archive.
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
    if expected is not None and size != int(expected):  # read(n) gives what came before the connection was lost
        raise OSError(f"the connection was lost after {size:,} of {int(expected):,} bytes")


def _archive_address(handle: str) -> str:
    if handle.startswith(_MIRROR):
        return _MIRROR_ARCHIVE.format(handle[len(_MIRROR) :])
    # An address of an archive may be signed, so nothing is added to it.
    is_archive = archives.is_archive(urllib.parse.urlsplit(handle).path)
    return handle if is_archive else _with_format(handle, "compressed")


def _with_format(handle: str, form: str) -> str:
    parts = urllib.parse.urlsplit(handle)
    query = [*urllib.parse.parse_qsl(parts.query), ("tf-hub-format", form)]
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))


def _bucket_of(handle: str) -> str:
    """Returns the folder that a server names in place of the archive."""
    try:
        with open_address(_with_format(handle, "uncompressed")):
            raise NotFetchedError("its server has no uncompressed form of it; leave TFHUB_MODEL_LOAD_FORMAT out", True)
    except urllib.error.HTTPError as error:
        location = error.read().decode(errors="replace").strip() if error.code == 303 else ""
        if not location.startswith("gs://"):
            raise _not_fetched(error) from error
        return location
    except (OSError, http.client.HTTPException) as error:
        raise _not_fetched(error) from error


class SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects as long as they stay encrypted."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Returns the next request.

        Raises:
          URLError: it would not be encrypted.
        """
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"it leads to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_address(address: str) -> Any:
    """Opens an https address for reading; no server can hold this up for long.

    Raises:
      OSError: it cannot be opened.
    """
    check_reachable(str(urllib.parse.urlsplit(address).hostname))
    context = ssl.create_default_context()
    if not hub_settings.checks_certificates():
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(SecureRedirects, urllib.request.HTTPSHandler(context=context))
    return opener.open(address, timeout=_READ_SECONDS)


def check_reachable(host: str) -> None:
    """Finds out fast whether there is a network, where others would try for minutes.

    Raises:
      OSError: the host does not answer.
    """
    if "https" in urllib.request.getproxies():
        return
    within(_REACH_SECONDS, lambda: socket.create_connection((host, 443), _CONNECT_SECONDS).close(), host)


def within(seconds: float, call: Callable[[], _T], what: str) -> _T:
    """Returns what a call returns, or raises what it raises, if that happens in time.

    Raises:
      TimeoutError: it does not; the call is left to itself.
    """
    outcome: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:  # handed on to the caller
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer from {what} within {seconds:g} seconds")
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def list_files(location: str) -> Mapping[str, tuple[int, int]]:
    """Returns size and time of change of the files of a folder on one of TensorFlow's file systems, or of an archive.

    Raises:
      NotFetchedError: there are none, or they cannot be read.
    """
    files = compat.tf.io.gfile
    try:
        if location.startswith("gs://"):
            check_reachable(_STORAGE_HOST)
        if not files.exists(location):  # says why it cannot look, which walking does not
            raise NotFetchedError("there is no such folder", answered=True)
        if archives.is_archive(location):
            names = [""]
        else:
            names = [
                f"{folder.rstrip('/')}/{name}"[len(location) + 1 :]
                for folder, _, found in files.walk(location, onerror=_raise)
                for name in found
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
    """Copies what `list_files` listed into an empty folder; an archive is unpacked.

    Raises:
      NotFetchedError: it cannot be read.
      UserError: a name leads outside, or the archive is none.
    """
    try:
        if "" in files:
            compat.tf.io.gfile.copy(location, f"{folder}.archive")
            archives.unpack(f"{folder}.archive", folder)
            return
        for name in files:
            place = archives.inside(folder, name)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            compat.tf.io.gfile.copy(f"{location}/{name}", place)
    except (OSError, compat.tf.errors.OpError) as error:
        raise _not_fetched(error) from error


def _not_fetched(error: Exception) -> NotFetchedError:
    """Returns why a server or one of TensorFlow's file systems failed, with what helps."""
    text = reason(error)
    errors = compat.tf.errors
    if isinstance(error, errors.UnimplementedError):
        return NotFetchedError(f"{text}; this TensorFlow cannot read it: copy it to a local folder", answered=True)
    refused = isinstance(error, (errors.PermissionDeniedError, errors.UnauthenticatedError))
    if refused or any(f"HTTP response code {code}" in text for code in (401, 403)):
        who = "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`, says who you are"
        return NotFetchedError(f"{text}; {who}", answered=True)
    return NotFetchedError(text, isinstance(error, (urllib.error.HTTPError, errors.NotFoundError)))


def reason(error: BaseException) -> str:
    """Returns an error in one line."""
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        error = error.reason if isinstance(error.reason, BaseException) else error
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    lines = str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error).split()
    return " ".join(lines)[:300] or type(error).__name__
