"""Listing, splitting, decoding and the order of examples."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from estimator_tl import inputs
from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.inputs.images.feature import decode_image
from estimator_tl.inputs.splits import part_of
from estimator_tl.specs import ImageSpec, linear_range
from tests.tiny import write_pictures

SPEC = ImageSpec(8, 8, 3, linear_range(0, 1), "[0, 1]")
IDENTITY = ImageSpec(4, 6, 3, lambda pixels: pixels, "[0, 255]")


def test_lists_classes_and_files(pictures):
    folder = inputs.image_folder(str(pictures))
    assert folder.labels == ("cat", "dog", "owl")
    assert len(folder.files) == 30
    assert folder.files[0] == ("cat/000.png", 0)
    assert folder.files[-1] == ("owl/009.png", 2)


def test_suffixes_in_any_case_and_hidden_files(tmp_path):
    write_pictures(tmp_path, ("a", "b"), count=1)
    for name in ("x.JPG", "y.Jpeg", "z.BMP", "w.gif"):
        Image.new("RGB", (5, 5)).save(tmp_path / "a" / name)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "a" / ".hidden.png").write_text("no picture")
    (tmp_path / ".cache").mkdir()
    folder = inputs.image_folder(str(tmp_path))
    assert [name for name, label in folder.files if label == 0] == [
        "a/000.png", "a/w.gif", "a/x.JPG", "a/y.Jpeg", "a/z.BMP",
    ]  # fmt: skip


def test_split_covers_everything_once_in_about_the_asked_shares():
    names = [f"c/{i}.jpg" for i in range(4000)]
    parts = [part_of(name, 0.2, 0.1) for name in names]
    assert 0.18 < parts.count("validation") / 4000 < 0.22
    assert 0.08 < parts.count("test") / 4000 < 0.12


def test_adding_pictures_never_moves_old_ones(tmp_path):
    def parts():
        folder = inputs.image_folder(str(tmp_path), validation=0.3, test=0.2)
        return {part: set(folder.examples(part).items) for part in ("train", "validation", "test")}

    write_pictures(tmp_path, count=40)
    before = parts()
    write_pictures(tmp_path / "more", ("x",), count=1)
    shutil.rmtree(tmp_path / "more")
    for index in range(40, 80):
        shutil.copy(tmp_path / "cat" / "000.png", tmp_path / "cat" / f"{index:03d}.png")
    after = parts()
    for part, paths in before.items():
        assert paths
        assert paths <= after[part]


def test_raising_the_validation_share_keeps_what_was_in_it():
    names = [f"c/{i}" for i in range(500)]
    small = {n for n in names if part_of(n, 0.1, 0.0) == "validation"}
    assert small < {n for n in names if part_of(n, 0.2, 0.0) == "validation"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.mkdir(), "no class folders"),
        (lambda root: write_pictures(root, ("only",)), r"one class \(only\)"),
        (lambda root: (write_pictures(root), (root / "empty").mkdir()), "class 'empty'.*is empty"),
        (
            lambda root: (write_pictures(root), (root / "cat" / "bad.jpg").write_text("hello")),
            "bad.jpg is not a readable",
        ),
        (lambda root: (write_pictures(root), (root / "cat" / "zero.png").touch()), "zero.png is not a readable"),
    ],
)
def test_bad_folders_are_named(tmp_path, make, message):
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        inputs.image_folder(str(tmp_path / "data"))


def test_skip_leaves_out_what_does_not_decode_to_its_end(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "cat" / "text.jpg").write_text("hello")
    whole = (tmp_path / "dog" / "000.png").read_bytes()
    (tmp_path / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    folder = inputs.image_folder(str(tmp_path), on_bad_example="skip")
    assert folder.skipped == ("cat/text.jpg", "dog/cut.png")
    assert len(folder.files) == 30


def test_unknown_class_in_other_data(tmp_path):
    write_pictures(tmp_path, ("cat", "dogs"))
    with pytest.raises(UserError, match="'dogs'.*did you mean 'dog'"):
        inputs.image_folder(str(tmp_path), labels=("cat", "dog", "owl"))


def test_known_labels_keep_their_numbers_where_a_class_is_missing(tmp_path):
    write_pictures(tmp_path, ("owl",), count=2)
    folder = inputs.image_folder(str(tmp_path), labels=("cat", "dog", "owl"))
    assert {label for _, label in folder.files} == {2}


def collect(dataset, batches):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        following = tf.compat.v1.data.make_one_shot_iterator(dataset()).get_next()
        return [session.run(following) for _ in range(batches)]


def order(pictures, seed, batches=15, first=0, batch=4, epochs=None):
    examples = inputs.image_folder(str(pictures)).examples()
    numbered = inputs.Examples(examples.items, tuple(range(len(examples))))
    got = collect(lambda: inputs.training_dataset(numbered, SPEC, batch, seed, epochs, first), batches)
    return np.concatenate([labels for _, labels in got]).tolist()


def test_each_epoch_is_a_permutation_of_its_own(pictures):
    places = order(pictures, seed=3)
    first, second = places[:30], places[30:60]
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second
    assert first != list(range(30))


def test_order_follows_from_the_seed_and_the_place_alone(pictures):
    whole = order(pictures, seed=3)
    assert order(pictures, seed=3) == whole
    assert order(pictures, seed=4) != whole
    assert order(pictures, seed=3, batches=5, first=10) == whole[40:60]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17])
def test_small_data_is_permuted_too(pictures, count):
    paths = inputs.image_folder(str(pictures)).examples().items[:count]
    examples = inputs.Examples(paths, tuple(range(count)))
    got = collect(lambda: inputs.training_dataset(examples, SPEC, count, seed=0), 3)
    for _, labels in got:
        assert sorted(labels) == list(range(count))


def test_epochs_end_the_data(pictures):
    with pytest.raises(tf.errors.OutOfRangeError):
        order(pictures, seed=0, epochs=1, batches=9)
    assert len(order(pictures, seed=0, epochs=1, batches=8)) == 30


def test_evaluation_gives_every_example_once_in_order(pictures):
    examples = inputs.image_folder(str(pictures)).examples()
    got = collect(lambda: inputs.evaluation_dataset(examples, SPEC, 8), 4)
    assert np.concatenate([labels for _, labels in got]).tolist() == list(examples.labels)
    assert [len(labels) for _, labels in got] == [8, 8, 8, 6]
    assert got[0][0]["image"].shape == (8, 8, 8, 3)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif"])
def test_decoding_keeps_the_pixels_of_a_picture_of_the_right_size(tmp_path, suffix):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2, :, 0], pixels[2:, :, 2] = 255, 255
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(pixels).save(path)
    decoded = decode_image(tf.io.read_file(str(path)), IDENTITY)
    np.testing.assert_allclose(decoded.numpy(), pixels, atol=1e-3)


@pytest.mark.parametrize("shape", [(40, 60), (8, 6), (4, 30), (2, 3), (5, 3)])
def test_resizing_up_or_down_passes_over_no_pixel(tmp_path, shape):
    """A fine checkerboard becomes even grey when it shrinks; its mean is kept in any case."""
    board = (np.indices(shape).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(np.stack([board] * 3, -1)).save(tmp_path / "x.png")
    decoded = decode_image(tf.io.read_file(str(tmp_path / "x.png")), IDENTITY).numpy()
    assert decoded.shape == (4, 6, 3)
    assert abs(decoded.mean() - board.mean()) < 30
    if shape == (40, 60):
        np.testing.assert_allclose(decoded, 127.5)


@pytest.mark.parametrize("shape", [(2, 3), (4, 3), (8, 6), (2, 12), (9, 3)])
def test_what_does_not_shrink_both_ways_is_bilinear_with_antialiasing(shape):
    pixels = np.random.RandomState(0).randint(0, 256, (*shape, 3), np.uint8)
    expected = tf.image.resize(pixels, (4, 6), antialias=True)
    if shape == (8, 6):
        expected = pixels.reshape(4, 2, 6, 3).mean(1)
    np.testing.assert_allclose(decode_image(tf.io.encode_png(pixels), IDENTITY), expected, atol=1e-3)


def test_decoding_by_content_not_by_suffix(tmp_path):
    Image.new("L", (10, 20), 51).save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", tmp_path / "x.jpg")
    decoded = decode_image(tf.io.read_file(str(tmp_path / "x.jpg")), SPEC)
    assert decoded.shape == (8, 8, 3)
    np.testing.assert_allclose(decoded.numpy(), 0.2, atol=1e-3)


def test_range_of_the_source_is_applied(tmp_path):
    Image.new("RGB", (8, 8), (255, 255, 255)).save(tmp_path / "x.png")
    spec = ImageSpec(8, 8, 3, linear_range(-1, 1), "[-1, 1]")
    np.testing.assert_allclose(decode_image(tf.io.read_file(str(tmp_path / "x.png")), spec).numpy(), 1.0, atol=1e-5)


def test_empty_part_is_an_error(pictures):
    with pytest.raises(UserError, match="validation part.*is empty"):
        inputs.image_folder(str(pictures)).examples("validation")


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (-0.1, 0), (1.2, 0)])
def test_shares_must_leave_something_to_train_on(pictures, fractions):
    with pytest.raises(UserError, match="sum to below 1"):
        inputs.image_folder(str(pictures), *fractions)
