"""The orientation of EXIF is what PIL makes of it, pixel for pixel."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from PIL import Image

from estimator_tl.compat import tf
from estimator_tl.inputs.images.decoding import decode_pixels
from estimator_tl.inputs.images.feature import decode_image
from estimator_tl.inputs.images.formats import decodes_webp
from estimator_tl.specs import ImageSpec
from tests import encoded
from tests.encoded import EXIF, segment, tiff, with_segments

ALL = range(1, 9)
IMAGE = encoded.noise()
SHORT, LONG = 3, 4
TAG = 0x0112


@functools.cache
def stored(kind="JPEG", mode="RGB"):
    """A file without an orientation, and its pixels."""
    data = encoded.encode(IMAGE.convert(mode), kind, **({"lossless": True} if kind == "WEBP" else {}))
    return data, decode_pixels(tf.constant(data), 1 if mode == "L" else 3).numpy()


def orientation_of(data):
    """The orientation by which the file's pixels are turned."""
    pixels = decode_pixels(tf.constant(data), 3).numpy()
    same = [value for value in ALL if np.array_equal(pixels, encoded.turned(stored()[1], value))]
    assert len(same) == 1
    return same[0]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_eight_orientations_of_a_jpeg(order, mode):
    data, pixels = stored(mode=mode)
    for value in ALL:
        turned = with_segments(data, segment(0xE1, EXIF + tiff((TAG, SHORT, 1, value), order=order)))
        got = decode_pixels(tf.constant(turned), pixels.shape[-1]).numpy()
        np.testing.assert_array_equal(got, encoded.turned(pixels, value))
        assert got.shape[:2] == encoded.shown(turned).shape[:2]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_all_eight_orientations_of_other_kinds(kind):
    if kind == "WEBP" and not decodes_webp():
        pytest.skip("this TensorFlow decodes no WebP")
    options = {"lossless": True} if kind == "WEBP" else {}
    for value in ALL:
        exif = Image.Exif()
        exif[TAG] = value
        data = encoded.encode(IMAGE, kind, exif=exif, **options)
        np.testing.assert_array_equal(decode_pixels(tf.constant(data), 3).numpy(), encoded.shown(data))


SIX = EXIF + tiff((TAG, SHORT, 1, 6))
MAKER = (0x010F, 2, 4, 0x41414141)
THUMBNAIL = tiff(MAKER, following=26) + tiff((TAG, SHORT, 1, 6))[8:]


@pytest.mark.parametrize(
    ("segments", "orientation"),
    [
        ([segment(0xE1, EXIF + tiff(MAKER, (0x0110, 2, 4, 0), (TAG, SHORT, 1, 8), (0x0131, 2, 4, 0)))], 8),
        ([segment(0xE1, EXIF + tiff(MAKER, (TAG, SHORT, 1, 3), order=">", start=100))], 3),
        ([segment(0xE1, EXIF + tiff((TAG, LONG, 1, 6), order=">"))], 6),
        ([segment(0xE2, b"ICC_PROFILE\0" + bytes(65_000))] * 5 + [segment(0xE1, SIX)], 6),
        ([segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), segment(0xFE, b"Exif\0\0"), segment(0xE1, SIX)], 6),
        ([b"\xff\xff\xff", segment(0xE1, SIX)], 6),
        ([segment(0xE1, SIX), segment(0xE1, EXIF + tiff((TAG, SHORT, 1, 3)))], 6),
        ([segment(0xED, b"Photoshop" + segment(0xE1, SIX))], 1),
        ([segment(0xE1, EXIF + THUMBNAIL)], 1),
        ([segment(0xE1, EXIF + tiff(MAKER))], 1),
        ([segment(0xE1, EXIF + tiff((TAG, SHORT, 1, 0)))], 1),
        ([segment(0xE1, EXIF + tiff((TAG, SHORT, 1, 9)))], 1),
        ([segment(0xE1, EXIF + tiff((TAG, SHORT, 2, 6)))], 1),
        ([segment(0xE1, EXIF)], 1),
        ([segment(0xE1, EXIF + b"II*\0\xff\xff\xff\xff")], 1),
        ([segment(0xE1, EXIF + b"XX" + tiff((TAG, SHORT, 1, 6))[2:])], 1),
        ([segment(0xE1, SIX[:20])], 1),
    ],
)
def test_where_exif_stands_in_a_jpeg(segments, orientation):
    assert orientation_of(with_segments(stored()[0], *segments)) == orientation


def test_exif_behind_the_first_segment_and_in_other_segments():
    data = stored()[0]
    size = 2 + int.from_bytes(data[4:6], "big")
    assert data[2:4] == b"\xff\xe0"  # JFIF
    behind = data[: 2 + size] + segment(0xE1, SIX) + data[2 + size :]
    assert orientation_of(behind) == 6
    before_the_pixels = behind.replace(segment(0xE1, SIX), b"").replace(
        b"\xff\xda", segment(0xE1, SIX) + b"\xff\xda", 1
    )
    assert orientation_of(before_the_pixels) == 6
    assert orientation_of(data + segment(0xE1, SIX)) == 1


def test_an_image_that_is_stored_sideways_is_resized_upright():
    spec = ImageSpec(6, 4, 3, lambda pixels: pixels, "[0, 255]")
    data, pixels = stored()
    for value in ALL:
        turned = with_segments(data, segment(0xE1, EXIF + tiff((TAG, SHORT, 1, value))))
        upright = tf.io.encode_png(tf.constant(encoded.turned(pixels, value)))
        np.testing.assert_allclose(decode_image(turned, spec), decode_image(upright, spec), atol=1e-3)
        first = decode_image(turned, dataclasses.replace(spec, rules=1))
        np.testing.assert_array_equal(first, decode_image(data, dataclasses.replace(spec, rules=1)))
