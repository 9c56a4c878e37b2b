"""The range that follows from what a model does to images, for maps that are written down here."""

from __future__ import annotations

import numpy as np
import pytest

from estimator_tl.backbones.input.range import (
    BYTES,
    SIGNED,
    UNIT,
    Finding,
    UnknownRangeError,
    chosen_range,
    find,
    joined,
)
from estimator_tl.errors import about

SHAPE = (1, 6, 4, 3)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CAFFE = np.array([103.939, 116.779, 123.68])


def padded(image):
    return np.pad(image, [(0, 0), (2, 2), (2, 2), (0, 0)])


def split(image):
    return np.concatenate([image[..., c] - CAFFE[c] for c in range(3)], axis=None)


@pytest.mark.parametrize(
    ("function", "expected", "text"),
    [
        (lambda x: x / 255, BYTES, "x / 255"),
        (lambda x: x * (1 / 255), BYTES, "x / 255"),
        (lambda x: x / 256, BYTES, "x / 256"),
        (lambda x: x / 127.5 - 1, BYTES, "x / 127.5 - 1"),
        (lambda x: x / 128 - 1, BYTES, "x / 128 - 1"),
        (lambda x: (x - 127.5) / 127.5, BYTES, "x / 127.5 - 1"),
        (lambda x: x / 255 - 0.5, BYTES, "x / 255 - 0.5"),
        (lambda x: x - 128, BYTES, "x - 128"),
        (lambda x: 255 - x, BYTES, "255 - x"),
        (lambda x: (255 - x) / 255, BYTES, "(255 - x) / 255"),
        (lambda x: x[..., ::-1] - CAFFE, BYTES, "x - [123.7, 116.8, 103.9]"),
        (split, BYTES, "x - [103.9, 116.8, 123.7]"),
        (lambda x: (x / 255 - MEAN) / 0.2, BYTES, "(x - [123.7, 116.3, 103.5]) / 51"),
        (lambda x: (x - 120) / [58, 57, 56], BYTES, "(x - 120) / [58, 57, 56]"),
        (lambda x: (x[..., ::-1] - CAFFE) * 0.017, BYTES, "(x - [123.7, 116.8, 103.9]) / 58.82"),
        (lambda x: padded(x) / 255, BYTES, "x / 255"),
        (lambda x: padded(x / 127.5 - 1), BYTES, "x / 127.5 - 1"),
        (lambda x: np.clip(x, 0, 255) / 255, BYTES, "x / 255"),
        (lambda x: x.astype(np.uint8) / 255, BYTES, "x / 255"),
        (lambda x: x @ np.array([[0.299], [0.587], [0.114]]) / 255, BYTES, "x / 255"),
        (lambda x: np.transpose(x, [0, 3, 1, 2]) / 255, BYTES, "x / 255"),
        (lambda x: np.concatenate([x / 255, np.ones_like(x)], -1), BYTES, "x / 255"),
        (
            lambda x: x - np.linspace(90, 130, x.size).reshape(x.shape),
            BYTES,
            "a scale and offset that differ from pixel to pixel",
        ),
        (lambda x: x * 2 - 1, UNIT, "x * 2 - 1"),
        (lambda x: (x - 0.5) * 2, UNIT, "x * 2 - 1"),
        (lambda x: x - 0.5, UNIT, "x - 0.5"),
        (lambda x: x * 255, UNIT, "x * 255"),
        (lambda x: 1 - x, UNIT, "1 - x"),
        (lambda x: x[..., ::-1] * 255 - CAFFE, UNIT, "(x - [0.485, 0.458, 0.4076]) * 255"),
        (lambda x: (x - MEAN) / DEVIATION, UNIT, "(x - [0.485, 0.456, 0.406]) * [4.367, 4.464, 4.444]"),
        (lambda x: (x - 0.4) / 0.25, UNIT, "x * 4 - 1.6"),
        (lambda x: (x + 1) / 2, SIGNED, "x / 2 + 0.5"),
        (lambda x: (x + 1) * 127.5, SIGNED, "x * 127.5 + 127.5"),
        (lambda x: (x + 1) * 127.5 - 100, SIGNED, "x * 127.5 + 27.5"),
        (lambda x: ((x + 1) / 2 - MEAN) / DEVIATION, SIGNED, "(x + [0.03, 0.088, 0.188]) * [2.183, 2.232, 2.222]"),
        (lambda x: (x + 0.05) / 0.5, SIGNED, "x * 2 + 0.1"),
        (lambda x: np.clip(x, 0, 255), BYTES, "clipping to [0, 255]"),
        (lambda x: x.astype(np.uint8), BYTES, "rounding or clipping to [0, 255]"),
        (lambda x: np.clip(x, 0, 1), UNIT, "rounding or clipping to [0, 1]"),
        (lambda x: np.clip(x, -1, 1), SIGNED, "clipping to [-1, 1]"),
    ],
)
def test_a_map_that_tells_its_range(function, expected, text):
    assert find(function, SHAPE) == Finding(text, expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: x[..., ::-1],
        padded,
        lambda x: np.maximum(x, 0),
        lambda x: x * 0.9995 + 1e-4,
        lambda x: x @ np.array([[0.2989], [0.587], [0.114]]),
    ],
)
def test_a_map_that_changes_nothing(function):
    assert find(function, SHAPE) == Finding("", None)


ODD = "arithmetic that is not a fixed scale and offset"


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: x * 3 + 7, "x * 3 + 7"),
        (lambda x: x / 127.5, "x / 127.5"),
        (lambda x: x / 2, "x / 2"),
        (lambda x: x * 2, "x * 2"),
        (lambda x: x + 1, "x + 1"),
        (lambda x: x * 127.5, "x * 127.5"),
        (lambda x: (x - 0.1307) / 0.3081, "x * 3.246 - 0.4242"),  # as for some images in [-1, 1]
        (lambda x: x @ np.array([[0.3, -0.1, 0.6], [0.6, -0.3, -0.5], [0.1, 0.4, -0.1]]), "a mix of the channels"),
        (lambda x: np.clip(x, -10, 10), "clipping to [-10, 10]"),
        (lambda x: x - x.mean((1, 2)), ODD),
        (lambda x: (x - x.mean()) / x.std(), ODD),
        (lambda x: (x - x.min()) / (x.max() - x.min()), ODD),
        (lambda x: x / x.max(), ODD),
        (lambda x: x**2.2, ODD),
        (lambda x: np.sqrt((x**2).sum(-1)), ODD),
        (lambda x: np.tanh(x), ODD),
        (lambda x: x * np.random.rand(), ODD),
    ],
)
def test_a_map_from_which_no_range_follows(function, text):
    finding = find(function, SHAPE)
    assert finding == Finding(text, None)
    with pytest.raises(UnknownRangeError) as error, about("m.h5"):
        chosen_range(finding, None)
    assert str(error.value) == (
        f"m.h5 changes its input before its first weights, and no range of images follows from that: {text}; say "
        "which values it takes with --input_range, e.g. 0,255 or 0,1 or -1,1."
    )
    assert chosen_range(finding, (0, 255)) == (0.0, 255.0)


def test_branches_of_one_input():
    by_255, by_127, other = Finding("x / 255", BYTES), Finding("x / 127.5 - 1", BYTES), Finding("x * 2 - 1", UNIT)
    nothing = Finding("", None)
    assert joined([]) == nothing
    assert joined([by_255, by_255]) == by_255
    assert joined([by_255, by_127]) == Finding("x / 255 and x / 127.5 - 1 in different branches", BYTES)
    assert joined([by_255, other]) == Finding("x / 255 and x * 2 - 1 in different branches", None)
    assert joined([nothing, by_255]) == Finding("x and x / 255 in different branches", None)


def test_grey_images():
    assert find(lambda x: x / 127.5 - 1, (1, 4, 4, 1)) == Finding("x / 127.5 - 1", BYTES)


def test_what_is_chosen():
    assert chosen_range(None, None) == UNIT
    assert chosen_range(Finding("", None), None) == UNIT
    assert chosen_range(Finding("x / 255", BYTES), None) == BYTES
    assert chosen_range(Finding("x / 255", BYTES), (-1, 1)) == SIGNED
