"""Images decode as a viewer shows them: colours of palettes, what is transparent on white, all kinds of BMP."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from estimator_tl.compat import tf
from estimator_tl.inputs.images.bmp import why_not
from estimator_tl.inputs.images.decoding import decode_pixels
from estimator_tl.inputs.images.feature import decode_image
from estimator_tl.inputs.images.formats import decodes_webp
from estimator_tl.specs import ImageSpec
from tests import encoded
from tests.encoded import bmp, encode, noise

RGB, RGBA = noise(), noise("RGBA")
GREY, BITS, PALETTE = RGB.convert("L"), RGB.convert("1"), RGB.quantize(16)
FIRST = {image.mode: image.getpixel((0, 0)) for image in (RGB, GREY, PALETTE)}
CORNER = RGBA.resize((9, 5))
INKS = noise().resize((2, 2)).resize((32, 24)).convert("CMYK")

FILES = {
    "png_rgba": encode(RGBA, "PNG"),
    "png_grey_alpha": encode(RGBA.convert("LA"), "PNG"),
    "png_palette": encode(PALETTE, "PNG"),
    "png_palette_one_clear": encode(PALETTE, "PNG", transparency=FIRST["P"]),
    "png_palette_alpha": encode(PALETTE, "PNG", transparency=bytes(range(0, 160, 10))),
    "png_rgb_one_clear": encode(RGB, "PNG", transparency=FIRST["RGB"]),
    "png_grey_one_clear": encode(GREY, "PNG", transparency=FIRST["L"]),
    "png_bits": encode(BITS, "PNG"),
    "png_bits_one_clear": encode(BITS, "PNG", transparency=0),
    "gif": encode(PALETTE, "GIF"),
    "gif_clear": encode(PALETTE, "GIF", transparency=FIRST["P"]),
    "gif_animation": encode(
        PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)], transparency=3, comment=b"x" * 700, loop=0
    ),
    "bmp_bits": encode(BITS, "BMP"),
    "bmp_grey": encode(GREY, "BMP"),
    "bmp_palette": encode(PALETTE, "BMP"),
    "bmp_rgb": encode(RGB, "BMP"),
    "jpeg_inks": encode(INKS, "JPEG", quality=100),
}
WEBP = {
    "alpha": encode(RGBA, "WEBP", lossless=True, exact=True),
    "opaque": encode(RGB, "WEBP", lossless=True),
    "animation": encode(RGBA, "WEBP", lossless=True, save_all=True, append_images=[RGBA.rotate(180)]),
}


def decoded(data, channels=3):
    """What the package makes of a file."""
    return decode_pixels(tf.constant(data), channels).numpy()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_that_pil_shows(name, channels):
    tolerance = 12 if name.startswith("jpeg") else 1  # of TensorFlow's fast JPEG; of rounding
    np.testing.assert_allclose(decoded(FILES[name], channels), encoded.shown(FILES[name], channels), atol=tolerance)


@pytest.mark.skipif(not decodes_webp(), reason="this TensorFlow decodes no WebP")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WEBP)
def test_webp(name, channels):
    np.testing.assert_allclose(decoded(WEBP[name], channels), encoded.shown(WEBP[name], channels), atol=1)


def test_sixteen_bits_are_read_to_their_last():
    pixels = np.random.RandomState(0).randint(0, 1 << 16, (5, 7, 4)).astype(np.uint16)
    for count in (1, 3):
        data = tf.io.encode_png(pixels[..., :count])
        np.testing.assert_allclose(decode_pixels(data, count), pixels[..., :count] / 257.0, atol=1e-3)
    alpha = pixels[..., 3:] / 65535.0
    expected = pixels[..., :3] / 257.0 * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(decode_pixels(tf.io.encode_png(pixels), 3), expected, atol=1e-2)


def test_a_first_frame_that_is_smaller_than_its_animation_is_on_white():
    frame = Image.new("P", (4, 3), 1)
    frame.putpalette([0, 0, 0, 10, 20, 30])
    data = bytearray(encode(frame, "GIF"))
    data[6:10] = bytes([6, 0, 5, 0])  # the size of the animation
    place = data.index(b"\x2c\0\0\0\0\x04\0\x03\0")
    data[place + 1 : place + 5] = bytes([2, 0, 1, 0])  # where the frame is in it
    expected = np.full((5, 6, 3), 255)
    expected[1:4, 2:6] = 10, 20, 30
    np.testing.assert_array_equal(decoded(bytes(data)), expected)


COLORS = np.random.RandomState(1).randint(0, 256, (16, 4)).astype(np.uint8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("top_down", [False, True])
def test_palettes_of_all_sizes(bits, top_down):
    places = np.random.RandomState(bits).randint(0, min(1 << bits, 16), (3, 11))
    rows = [np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, -bits:]) for row in places]
    rows = [row.tobytes().ljust(-(-len(row) // 4) * 4, b"\0") for row in rows]
    palette = COLORS[: 1 << bits].tobytes().ljust(4 << bits, b"\0")
    data = bmp(11, -3 if top_down else 3, bits, b"".join(rows if top_down else rows[::-1]), palette)
    np.testing.assert_array_equal(decoded(data), COLORS[places][..., 2::-1])


def test_the_fourth_byte_of_a_bmp():
    """It is alpha where it is not 0 in all pixels."""
    rgba = np.asarray(CORNER)
    bgra = rgba[..., [2, 1, 0, 3]]
    unused = np.concatenate([bgra[..., :3], np.zeros_like(bgra[..., :1])], -1)
    masks = (0xFF0000, 0xFF00, 0xFF)
    for settings in ({}, {"compression": 3, "masks": masks}, {"compression": 3, "masks": (*masks, 0xFF000000)}):
        got = decoded(bmp(9, -5, 32, bgra.tobytes(), **settings))
        np.testing.assert_allclose(got, encoded.shown(encode(CORNER, "PNG")), atol=1)
        np.testing.assert_array_equal(decoded(bmp(9, -5, 32, unused.tobytes(), **settings)), rgba[..., :3])


REFUSED = {
    "is a BMP with run lengths": bmp(8, 2, 8, b"\x08\x01\0\0\x08\x02\0\x01", bytes(1024), compression=1),
    "is a BMP of 16 bits a pixel": bmp(8, 2, 16, bytes(32)),
    "is a BMP whose colors are in another order": bmp(2, 2, 32, bytes(16), compression=3, masks=(255, 65280, 16711680)),
    "is a BMP of OS/2 1": b"BM" + bytes(12) + b"\x0c" + bytes(70),
    "is a BMP that ends in its header": FILES["bmp_rgb"][:40],
}


@pytest.mark.parametrize("why", REFUSED)
def test_other_kinds_of_bmp_are_refused_by_name(why):
    assert why_not(REFUSED[why]) == why
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(REFUSED[why])


@pytest.mark.parametrize(
    "data",
    [
        FILES["bmp_rgb"][:-9],
        b"no image",
        b"",
    ],
)
def test_what_is_not_decoded_is_an_error(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(data)


@pytest.mark.parametrize("name", ["png_rgba", "png_palette_one_clear", "bmp_palette"])
def test_the_first_rules_keep_what_is_stored(name):
    pixels = tf.io.decode_image(FILES[name], channels=3).numpy()
    spec = ImageSpec(*pixels.shape, lambda image: image, "[0, 255]", rules=1)
    np.testing.assert_array_equal(decode_image(FILES[name], spec), pixels)
    assert np.abs(decode_image(FILES[name], dataclasses.replace(spec, rules=2)) - pixels).max() > 50
