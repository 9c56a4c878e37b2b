"""Every file below a class folder is an image, or counted by kind; names are compared in composed code points."""

from __future__ import annotations

import os
import unicodedata

import pytest

from estimator_tl import inputs
from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.inputs.images.formats import decodes_webp
from estimator_tl.specs import ImageSpec
from tests.encoded import bmp, encode, noise
from tests.tiny import write_pictures

IMAGE = noise()
WEBP = encode(IMAGE, "WEBP", lossless=True)
TIFF = encode(IMAGE, "TIFF")
RUN_LENGTHS = bmp(8, 2, 8, b"\x08\x01\0\0\x08\x02\0\x01", bytes(1024), compression=1)


def write(root, files):
    """Writes files, {name: bytes}, beside two classes of one image each."""
    write_pictures(root, ("cat", "dog"), count=1)
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)


def listed(root, **settings):
    """The names of the images."""
    return [name for name, _ in inputs.image_folder(root, **settings).files]


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_content_decides_and_folders_nest(policy, tmp_path, capsys):
    jpeg, png = encode(IMAGE, "JPEG"), encode(IMAGE, "PNG")
    images = {"cat/a.jfif": jpeg, "cat/b.jpe": jpeg, "cat/c": png, "cat/d.txt": png, "dog/deep/er/x.JPG": jpeg}
    hidden = [".x.jpg", "._x.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "@eaDir/x.jpg", ".git/x.jpg"]
    root = write(tmp_path, {**images, **{f"cat/{name}": b"hidden" for name in hidden}})
    assert listed(root, on_bad_example=policy) == sorted([*images, "cat/000.png", "dog/000.png"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_what_is_left_out_is_counted_by_kind(policy, tmp_path, capsys):
    others = {"cat/a.tif": TIFF, "cat/b.TIF": TIFF, "cat/c.jpg": TIFF, "cat/n/notes.txt": b"n", "dog/d": b"n"}
    root = write(tmp_path, others)
    assert listed(root, on_bad_example=policy) == ["cat/000.png", "dog/000.png"]
    assert capsys.readouterr().err == (
        f"left out: 2 files .tif, 1 file .jpg (TIFF), 1 file .txt, 1 file without suffix in 2 class folders of {root}\n"
    )


def test_images_outside_of_class_folders_are_counted(tmp_path, capsys):
    jpeg, png = encode(IMAGE, "JPEG"), encode(IMAGE, "PNG")
    root = write(tmp_path, {"a.jpg": jpeg, "b.JPG": jpeg, "c": png, "README.txt": b"n", "._x.jpg": jpeg})
    assert listed(root) == ["cat/000.png", "dog/000.png"]
    line = f"left out: 2 files .jpg, 1 file without suffix directly in {root}, outside of any class folder\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_webp_has_one_answer(policy, tmp_path, capsys):
    root = write(tmp_path, {"cat/a.webp": WEBP, "dog/b.jpg": WEBP})
    names = listed(root, on_bad_example=policy)
    if decodes_webp():
        assert names == ["cat/000.png", "cat/a.webp", "dog/000.png", "dog/b.jpg"]
        assert capsys.readouterr().err == ""
    else:
        assert names == ["cat/000.png", "dog/000.png"]
        why = f"(TensorFlow {tf.__version__} does not decode WebP)"
        line = f"left out: 1 file .jpg (WebP), 1 file .webp {why} in 2 class folders of {root}\n"
        assert capsys.readouterr().err == line


def test_what_should_be_an_image_is_named_or_skipped(tmp_path):
    root = write(tmp_path, {"cat/empty.webp": b"", "dog/runs.bmp": RUN_LENGTHS})
    with pytest.raises(UserError) as error:
        listed(root)
    kinds = "JPEG, PNG, BMP, GIF or WebP" if decodes_webp() else "JPEG, PNG, BMP or GIF"
    advice = "replace it, or use --on_bad_example=skip."
    assert str(error.value) == f"{root}/cat/empty.webp is not a readable {kinds} (and 1 more); {advice}"
    assert inputs.image_folder(root, on_bad_example="skip").skipped == ("cat/empty.webp", "dog/runs.bmp")
    os.remove(f"{root}/cat/empty.webp")
    with pytest.raises(UserError) as error:
        listed(root)
    assert str(error.value) == f"{root}/dog/runs.bmp is a BMP with run lengths; {advice}"


def test_a_class_of_other_files_is_refused_by_their_kind(tmp_path):
    root = write(tmp_path, {"owl/a.tif": TIFF, "owl/b.tif": TIFF})
    with pytest.raises(UserError, match=r"class 'owl' in .* holds no JPEG, .* \(2 files .tif\); convert its files or"):
        listed(root)


def test_links_are_followed_once_and_broken_ones_named(tmp_path):
    root = write(tmp_path, {"cat/deep/x.png": encode(IMAGE, "PNG")})
    os.symlink(tmp_path / "cat", tmp_path / "cat" / "deep" / "loop")
    assert listed(root) == ["cat/000.png", "cat/deep/x.png", "dog/000.png"]
    os.symlink(tmp_path / "nowhere.png", tmp_path / "dog" / "y.png")
    with pytest.raises(UserError, match=r"dog/y.png cannot be read \(No such file or directory\); replace it"):
        listed(root)


def test_the_first_rules_list_as_before(tmp_path, capsys):
    files = {"cat/a.jfif": encode(IMAGE, "JPEG"), "cat/n/b.png": WEBP, "cat/c.tif": TIFF, "__x/a.png": b"x"}
    root = write(tmp_path, files)
    assert listed(root, rules=1) == ["cat/000.png", "dog/000.png"]
    assert capsys.readouterr().err == ""


COMPOSED, PARTED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def test_composed_and_parted_names_are_one_class(tmp_path):
    write_pictures(tmp_path, (PARTED, "tea"), count=2)
    folder = inputs.image_folder(str(tmp_path))
    assert folder.labels == (COMPOSED, "tea")
    assert inputs.image_folder(str(tmp_path), labels=("tea", COMPOSED)).files[0] == (f"{PARTED}/000.png", 1)
    assert inputs.image_folder(str(tmp_path), labels=(PARTED, "tea")).labels == (PARTED, "tea")
    parts = {name: os.path.relpath(path, tmp_path) for name, path, _ in folder.rows()}
    assert parts[f"{COMPOSED}/000.png"] == f"{PARTED}/000.png"
    write_pictures(tmp_path, (COMPOSED,), count=3)
    assert len(inputs.image_folder(str(tmp_path)).files) == 7
    assert inputs.image_folder(str(tmp_path)).labels == (COMPOSED, "tea")


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (
            ("train", "val", "test"),
            "(test, train, val), not classes; use --train_data=ROOT/train --eval_data=ROOT/val.",
        ),
        (
            ("Train set", "test"),
            "(Train set, test), not classes; use --train_data=ROOT/Train set --eval_data=ROOT/test.",
        ),
        (("train",), "(train), not classes; use --train_data=ROOT/train."),
    ],
)
def test_a_folder_of_splits_is_refused(names, advice, tmp_path):
    for name in names:
        write_pictures(tmp_path / name, ("cat", "dog"), count=1)
    with pytest.raises(UserError) as error:
        inputs.image_folder(str(tmp_path))
    assert (
        str(error.value) == f"{tmp_path} looks like a folder with splits inside {advice.replace('ROOT', str(tmp_path))}"
    )


def test_classes_named_as_splits_are_classes(tmp_path):
    write_pictures(tmp_path, ("train", "test"), count=2)
    assert inputs.image_folder(str(tmp_path)).labels == ("test", "train")
    write_pictures(tmp_path / "train", ("side", "front"), count=1)
    write_pictures(tmp_path, ("bus",), count=1)
    assert len(inputs.image_folder(str(tmp_path)).files) == 7


class Unsearched(tuple):
    """Labels in which a search, which takes a time that grows with their number, is an error."""

    def index(self, *arguments):
        raise AssertionError("a search for each class or file")

    __contains__ = index


def test_classes_are_not_searched_for_each_file(tmp_path):
    names = [f"class_{number}" for number in range(30)]
    write_pictures(tmp_path, names, count=2)
    for rules in (1, 2):
        folder = inputs.image_folder(str(tmp_path), labels=Unsearched(reversed(names)), rules=rules)
        assert {label for name, label in folder.files if name.startswith("class_0/")} == {29}


def test_files_are_one_constant_of_a_graph(tmp_path):
    """A hundred thousand constants took a minute before the first step; names that are not UTF-8 are files too."""
    write_pictures(tmp_path, ("a", "b"), count=20)
    os.rename(
        os.path.join(os.fsencode(tmp_path), b"a", b"000.png"), os.path.join(os.fsencode(tmp_path), b"a", b"\xe4.png")
    )
    folder = inputs.image_folder(str(tmp_path), validation=0.1)
    spec = ImageSpec(8, 8, 3, lambda pixels: pixels, "[0, 255]")
    with tf.Graph().as_default() as graph:
        dataset = folder.input_fn(spec, 40)()
        constants = [
            node.attr["value"].tensor
            for function in (graph.as_graph_def(), *graph.as_graph_def().library.function)
            for node in (getattr(function, "node", None) or function.node_def)
            if node.op == "Const" and node.attr["dtype"].type == tf.string
        ]
        assert max(len(constant.string_val) for constant in constants) == 1
        batch = tf.compat.v1.data.make_one_shot_iterator(dataset).get_next()
        with tf.compat.v1.Session() as session:
            features, labels = session.run(batch)
    assert labels.tolist() == [0] * 20 + [1] * 20
    assert features["image"].shape == (40, 8, 8, 3)
    assert folder.digest().startswith("sha256:")
