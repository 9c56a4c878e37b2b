"""Finds the kind of a file by its first bytes; the suffix only decides whether a broken file should be an image."""

from __future__ import annotations

import base64
import dataclasses
import functools
import os

from estimator_tl.compat import tf
from estimator_tl.inputs.images import bmp

#: How many bytes of a file `kind_of` reads.
HEAD = bmp.HEAD
#: Suffixes of images that TensorFlow decodes.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp")

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "PSD",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "HEIC")}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_ALWAYS_DECODED = ("JPEG", "PNG", "BMP", "GIF")
_SUFFIXES_OF = {
    "TIFF": (".tif", ".tiff"),
    "WebP": (".webp",),
    "HEIC": (".heic", ".heif"),
    "AVIF": (".avif",),
    "JPEG XL": (".jxl",),
    "JPEG 2000": (".jp2", ".j2k", ".jpx"),
    "PSD": (".psd",),
}
_WEBP_OF_ONE_PIXEL = "UklGRhoAAABXRUJQVlA4TA4AAAAvAAAAAAcQEf0PRET/Aw=="
_BARE = "without suffix"


def kind_of(head: bytes) -> str | None:
    """Returns the kind of image by its first bytes, e.g. ``JPEG``; None where the file is not an image.

    Args:
      head: the first `HEAD` bytes of a file.
    """
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return None


@functools.cache
def decodes_webp() -> bool:
    """Returns whether this TensorFlow decodes WebP, by decoding an image of one pixel."""
    pixel = base64.b64decode(_WEBP_OF_ONE_PIXEL)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            session.run(tf.io.decode_image(pixel, expand_animations=False))
        except tf.errors.OpError:
            return False
    return True


def is_decoded(kind: str | None) -> bool:
    """Returns whether images of a kind are decoded."""
    return kind in _ALWAYS_DECODED or (kind == "WebP" and decodes_webp())


def decoded_kinds() -> str:
    """Returns the kinds of images that are decoded, for a message."""
    return "JPEG, PNG, BMP, GIF or WebP" if decodes_webp() else "JPEG, PNG, BMP or GIF"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a file in a folder of images is treated: used, left out or refused.

    Attributes:
      kind: the kind of image, e.g. ``JPEG``; None where the file cannot be decoded.
      why_bad: why the file cannot be decoded, in words that follow its name; None where it can.
      left_out_as: the kind of file in words, where the file is left out without an error; None for other files.
    """

    kind: str | None
    why_bad: str | None = None
    left_out_as: str | None = None


def judge(path: str) -> Verdict:
    """Returns how a file is treated; only its first bytes are read.

    Two sorts of files are left out: images of kinds that are not decoded, with any suffix, and files that are not
    images and have no suffix of an image.
    """
    suffix = os.path.splitext(path)[1].lower()
    other_kind = None if suffix in SUFFIXES else suffix or _BARE
    try:
        head = _head(path)
    except OSError as error:
        return Verdict(None, f"cannot be read ({error.strerror})", other_kind)
    kind = kind_of(head)
    if kind == "BMP":
        fault = bmp.why_not(head)
        return Verdict(None, fault) if fault else Verdict(kind)
    if is_decoded(kind):
        return Verdict(kind)
    if kind is None:
        return Verdict(None, f"is not a readable {decoded_kinds()}", other_kind)
    reason = f"is a {kind} image, which TensorFlow {tf.__version__} does not decode"
    if suffix in _SUFFIXES_OF[kind]:
        return Verdict(None, reason, suffix)
    return Verdict(None, reason, f"{suffix} ({kind})".strip())


def _head(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)  # takes half the time of `open`
    try:
        return os.read(descriptor, HEAD)
    finally:
        os.close(descriptor)
