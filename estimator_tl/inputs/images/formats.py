"""What a file is, by its first bytes; its suffix only says what a file that is no image was meant to be."""

from __future__ import annotations

import base64
import dataclasses
import functools
import os

from estimator_tl.compat import tf
from estimator_tl.inputs.images import bmp

#: Bytes of a file that `kind_of` looks at.
HEAD = bmp.HEAD
#: Suffixes that promise an image which TensorFlow decodes.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp")

_MARKS = {
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
    """Returns the kind of image that begins so, e.g. ``JPEG``; None for what is none.

    Args:
      head: the first `HEAD` bytes of a file.
    """
    for mark, kind in _MARKS.items():
        if head.startswith(mark):
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
    """Returns whether this TensorFlow decodes WebP; it decodes an image of one pixel to see."""
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
    """What becomes of a file in a folder of images.

    Attributes:
      kind: of the image, e.g. ``JPEG``; None for a file that is none, or of a kind that is not decoded.
      why_bad: why it is no image that is decoded, in words that follow its name; None where it may be one.
      left_out_as: its kind in words, where it is no file that was meant to be decoded; None for all others.
    """

    kind: str | None
    why_bad: str | None = None
    left_out_as: str | None = None


def judge(path: str) -> Verdict:
    """Returns what becomes of a file; only its first bytes are read.

    Left out are images of kinds that are not decoded, whatever their suffix, and other files without the suffix of an
    image.
    """
    suffix = os.path.splitext(path)[1].lower()
    meant = suffix in SUFFIXES
    try:
        head = _head(path)
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
        return Verdict(None, why, None if meant else suffix or _BARE)
    kind = kind_of(head)
    if kind == "BMP":
        why_not = bmp.why_not(head)
        return Verdict(None, why_not) if why_not else Verdict(kind)
    if is_decoded(kind):
        return Verdict(kind)
    if kind is None:
        return Verdict(None, f"is not a readable {decoded_kinds()}", None if meant else suffix or _BARE)
    why = f"is a {kind} image, which TensorFlow {tf.__version__} does not decode"
    return Verdict(None, why, suffix if suffix in _SUFFIXES_OF[kind] else f"{suffix} ({kind})".strip())


def _head(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)  # half the time of `open`
    try:
        return os.read(descriptor, HEAD)
    finally:
        os.close(descriptor)
