"""Encoded images for tests: written by PIL, and put together byte by byte where PIL does not write them."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, ImageOps

EXIF = b"Exif\0\0"


def noise(mode: str = "RGB", width: int = 17, height: int = 12, seed: int = 0) -> Image.Image:
    """Returns an image of random pixels."""
    shape = (height, width, len(mode))
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, shape, np.uint8).squeeze(), mode)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    """Returns the file that PIL writes."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def shown(encoded: bytes, channels: int = 3) -> np.ndarray:
    """Returns uint8 [height, width, channels], as PIL reads a file: upright, and composited on white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns [height, width, channels] as `PIL.ImageOps.exif_transpose` turns it."""
    image = Image.fromarray(pixels.astype(np.uint8).squeeze())
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image)).reshape(*image_size(image, orientation), -1)


def image_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """Returns (height, width) of an image when it is upright."""
    return image.size if orientation >= 5 else image.size[::-1]


def tiff(*entries: tuple[int, int, int, int], order: str = "<", start: int = 8, following: int = 0) -> bytes:
    """Returns a TIFF structure with one directory.

    Args:
      *entries: tag, type, count and value of each; a value of type SHORT (3) takes the first two of its four bytes.
      order: ``<`` or ``>``.
      start: where the directory begins.
      following: where the next directory begins; 0 for none.
    """
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, start)
    body = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack(f"{order}HHI", tag, kind, count)
        body += struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
    return head.ljust(start, b"\0") + body + struct.pack(f"{order}I", following)


def segment(marker: int, data: bytes) -> bytes:
    """Returns a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Returns a JPEG with further segments, or other bytes, after its first two bytes."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def bmp(width: int, height: int, bits: int, rows: bytes, palette: bytes = b"", compression: int = 0, masks=()) -> bytes:
    """Returns a BMP; rows are padded to four bytes already, and a negative height means from the top down."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 0, 0, 0, 0)
    if len(masks) == 4:
        header = struct.pack("<I", 56) + header[4:]
    extra = b"".join(struct.pack("<I", mask) for mask in masks)
    start = 14 + len(header) + len(extra) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + extra + palette + rows
