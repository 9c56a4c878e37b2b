"""What `predict` reads, and how many scores it prints."""

from __future__ import annotations

import csv
import json
import os

import pytest

from estimator_tl.cli import predict
from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from estimator_tl.inputs.images.formats import decodes_webp
from tests import runs
from tests.encoded import EXIF, encode, noise, segment, tiff, with_segments
from tests.tiny import write_pictures

LABELS = tuple("abcdefg")


@pytest.fixture(scope="module")
def run_of_seven(keras_h5, tmp_path_factory):
    """A run of seven classes."""
    folder = tmp_path_factory.mktemp("seven")
    runs.train(folder / "run", keras_h5, write_pictures(folder / "data", LABELS, count=2), 1)
    return folder / "run"


def answers(run, capsys, *arguments):
    """The lines of JSON that `predict` prints."""
    assert main(["predict", f"--model_dir={run}", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def table(run, capsys, *arguments):
    """The rows of CSV that `predict` prints."""
    assert main(["predict", f"--model_dir={run}", "--format=csv", *arguments]) == 0
    return list(csv.reader(capsys.readouterr().out.splitlines()))


def image_of(run, name="a/000.png"):
    return str(run.parent / "data" / name)


def test_the_five_best_scores_are_the_default(run_of_seven, capsys):
    image = image_of(run_of_seven)
    (five,), (every,) = (answers(run_of_seven, capsys, image, *flags) for flags in ([], ["--top_k=9"]))
    assert tuple(every["scores"]) == LABELS
    best = sorted(every["scores"], key=every["scores"].get, reverse=True)[:5]
    assert list(five["scores"]) == best
    assert five == {**every, "scores": {label: every["scores"][label] for label in best}}


def test_columns_of_a_table(run_of_seven, capsys):
    image = image_of(run_of_seven)
    every, two = (table(run_of_seven, capsys, image, f"--top_k={count}") for count in ("all", 2))
    assert every[0] == ["file", "class", "score", *LABELS]
    assert two[0] == ["file", "class", "score", "class_2", "score_2"]
    first, second = sorted(every[1][3:], key=float, reverse=True)[:2]
    assert two[1] == [image, every[1][1], first, LABELS[every[1][3:].index(second)], second]


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_scores_is_refused(value, run_of_seven, capsys):
    assert main(["predict", f"--model_dir={run_of_seven}", f"--top_k={value}", image_of(run_of_seven)]) == 2
    message = f"error: --top_k={value} must be a whole number of at least 1, or all.\n"
    assert capsys.readouterr().err == message


def test_names_with_commas(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.jpg", "c, d.jpg", "x.jpg"):
        (tmp_path / name).touch()
    assert predict._items("a,b.jpg") == ["a,b.jpg"]
    assert predict._items("x.jpg,a,b.jpg,*.png,c, d.jpg") == ["x.jpg", "a,b.jpg", "*.png", "c, d.jpg"]
    assert predict._items("x.jpg, y.jpg") == ["x.jpg", "y.jpg"]
    assert predict._items("csv('t.csv', text='a')") == ["csv('t.csv', text='a')"]
    assert predict._items("") == []


def test_a_folder_gives_its_images_and_counts_the_rest(run_of_seven, tmp_path, capsys):
    image = noise()
    files = {"a,b.jpg": "JPEG", "b": "PNG", "n/c.txt": "JPEG", "d.tif": "TIFF", "e.webp": "WEBP"}
    (tmp_path / "n").mkdir()
    for name, kind in files.items():
        (tmp_path / name).write_bytes(encode(image, kind))
    for name in ("._x.jpg", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"hidden")
    assert main(["predict", f"--model_dir={run_of_seven}", f"--input={tmp_path}"]) == 0
    printed = capsys.readouterr()
    names = [os.path.relpath(json.loads(line)["file"], tmp_path) for line in printed.out.splitlines()]
    assert names == ["a,b.jpg", "b", *["e.webp"] * decodes_webp(), "n/c.txt"]
    kinds = "1 file .tif" if decodes_webp() else "1 file .tif, 1 file .webp"
    assert printed.err.startswith(f"left out: {kinds}")
    assert printed.err.endswith(f" in {tmp_path}\n")
    assert main(["predict", f"--model_dir={run_of_seven}", f"--input={tmp_path}/d.tif"]) == 2
    assert f"{tmp_path}/d.tif is a TIFF image, which TensorFlow" in capsys.readouterr().err


def test_an_image_that_is_stored_sideways_is_predicted_and_served_upright(run_of_seven, tmp_path, capsys):
    image = noise("L", 16, 16).convert("RGB")
    jpeg = encode(image, "JPEG", quality=100)
    (tmp_path / "stored.jpg").write_bytes(with_segments(jpeg, segment(0xE1, EXIF + tiff((0x0112, 3, 1, 6)))))
    encode_upright = encode(image.rotate(270), "PNG")
    (tmp_path / "upright.png").write_bytes(encode_upright)
    (tmp_path / "sideways.png").write_bytes(encode(image, "PNG"))
    paths = [str(tmp_path / name) for name in ("stored.jpg", "upright.png", "sideways.png")]
    lines = answers(run_of_seven, capsys, *paths, "--top_k=all")
    stored, upright, sideways = (list(line["scores"].values()) for line in lines)
    assert main(["export", f"--model_dir={run_of_seven}", f"--export_dir={tmp_path / 'export'}"]) == 0
    serve = tf.saved_model.load(capsys.readouterr().out.splitlines()[-1]).signatures["serving_default"]
    served = serve(image_bytes=tf.constant([(tmp_path / "stored.jpg").read_bytes()]))["probabilities"]
    assert stored == pytest.approx(served[0].numpy().tolist(), abs=2e-6)
    assert stored == pytest.approx(upright, abs=2e-3)
    assert stored != pytest.approx(sideways, abs=4e-3)
