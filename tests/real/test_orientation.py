"""Photos that a camera stored sideways are read upright."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from estimator_tl.compat import tf
from estimator_tl.inputs.images.decoding import decode_pixels
from estimator_tl.inputs.images.feature import decode_image
from estimator_tl.specs import ImageSpec

TAG = 0x0112


@pytest.fixture(scope="module")
def sideways(real_images):
    """The photos that are not stored upright."""
    paths = sorted(path for path in real_images.glob("*/*.JPG") if Image.open(path).getexif().get(TAG, 1) != 1)
    assert [path.name for path in paths] == ["IMG_5874.JPG", "IMG_5935.JPG", "IMG_5978.JPG"]
    return paths


def test_pixels_are_turned_as_pil_turns_them(sideways):
    for path in sideways:
        stored = Image.fromarray(tf.io.decode_jpeg(path.read_bytes()).numpy())
        stored.getexif()[TAG] = Image.open(path).getexif()[TAG]
        pixels = decode_pixels(tf.constant(path.read_bytes()), 3).numpy()
        np.testing.assert_array_equal(pixels, np.asarray(ImageOps.exif_transpose(stored)))


def test_images_of_a_network_s_size_are_those_that_pil_shows(sideways):
    spec = ImageSpec(224, 224, 3, lambda pixels: pixels, "[0, 255]")
    for path in sideways:
        shown = np.asarray(
            ImageOps.exif_transpose(Image.open(path)).resize((224, 224), Image.Resampling.BOX), np.float32
        )
        image = decode_image(tf.constant(path.read_bytes()), spec).numpy()
        assert np.abs(image - shown).mean() < 2
        assert np.abs(image - np.rot90(shown)).mean() > 20
