"""What a run stored is what `evaluate` uses: classes, split, settings; whatever its data have become since."""

from __future__ import annotations

import json
import shutil

import pytest

from estimator_tl.cli.main import main
from estimator_tl.inputs import image_folder
from tests.tiny import write_pictures

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def trained(hub_module, tmp_path_factory):
    """A run that tells its three classes apart, and the folder of its data."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_pictures(folder / "data", CLASSES)
    flags = {
        "backbone": hub_module.handle,
        "train_data": folder / "data",
        "model_dir": folder / "run",
        "tuning": "full",
        "train_steps": 60,
        "save_checkpoints_steps": 60,
        "batch_size": 8,
        "learning_rate": 0.02,
        "validation_fraction": 0.3,
        "test_fraction": 0.2,
    }
    assert main(["train", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """The run, on a copy of its data that the test may change."""
    shutil.copytree(trained / "data", tmp_path / "data")
    shutil.copytree(trained / "run", tmp_path / "run")
    for name in ("run.json", "flags.txt"):
        path = tmp_path / "run" / name
        path.write_text(path.read_text().replace(str(trained / "data"), str(tmp_path / "data")))
    return tmp_path


def evaluated(capsys, run, *flags):
    capsys.readouterr()
    assert main(["evaluate", f"--model_dir={run}/run", *flags]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out.splitlines()[-1]), printed.err


def refused(capsys, command, *flags):
    capsys.readouterr()
    assert main([command, *flags]) == 2
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in printed.err
    return line.removeprefix("error: ")


@pytest.mark.parametrize("split", ["validation", "all"])
def test_a_class_that_was_removed_leaves_the_numbers_of_the_others(run, capsys, split):
    before, _ = evaluated(capsys, run, f"--split={split}")
    assert before["accuracy"] == 1.0
    shutil.rmtree(run / "data" / "cat")  # the first: all others would move up by one
    after, err = evaluated(capsys, run, f"--split={split}")
    assert after["accuracy"] == 1.0
    data = image_folder(str(run / "data"), validation=0.3, test=0.2)
    assert after["examples"] == len(data.examples(split)) < before["examples"]
    assert f"{run}/data no longer has an example of 'cat'; the metrics cover the other classes\n" in err


def test_the_order_of_folders_says_nothing(run, capsys):
    """A class whose folder was swapped for that of another has the other's pictures: the numbers say so."""
    (run / "data" / "cat").rename(run / "data" / "x")
    (run / "data" / "dog").rename(run / "data" / "cat")
    (run / "data" / "x").rename(run / "data" / "dog")
    result, _ = evaluated(capsys, run, "--split=all")
    assert result["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("flags", [[], ["--split=all"], ["--eval_data=DATA"]], ids=["own", "all", "eval_data"])
def test_a_class_that_the_run_does_not_know_is_named(run, capsys, flags):
    shutil.copytree(run / "data" / "owl", run / "data" / "ant")
    flags = [flag.replace("DATA", str(run / "data")) for flag in flags]
    assert refused(capsys, "evaluate", f"--model_dir={run}/run", *flags) == (
        f"{run}/data holds the class 'ant', which the run does not know; rename it or take it out of the data, or "
        "train a new run with it; did you mean 'cat'? Known: cat, dog, owl."
    )
    shutil.rmtree(run / "data" / "dog")
    assert "holds the class 'ant'" in refused(capsys, "evaluate", f"--model_dir={run}/run", *flags)


def test_a_run_does_not_go_on_with_other_classes(run, capsys):
    before = sorted(path.name for path in (run / "run").iterdir())
    flags = [f"--flagfile={run}/run/flags.txt", f"--model_dir={run}/run", "--train_steps=61"]
    shutil.move(run / "data" / "dog", run / "dog")
    assert refused(capsys, "train", *flags) == (
        f"{run}/data has no class 'dog', which the run in {run}/run began with; put it back, or use another "
        "--model_dir."
    )
    shutil.move(run / "dog", run / "data" / "elk")
    assert refused(capsys, "train", *flags).startswith(f"{run}/data holds the class 'elk', which the run does not know")
    assert sorted(path.name for path in (run / "run").iterdir()) == before
    shutil.move(run / "data" / "elk", run / "data" / "dog")
    assert main(["train", *flags]) == 0


def test_the_settings_of_the_run(run, capsys, monkeypatch):
    from estimator_tl.inputs.folders.image_folder import ImageFolder

    sizes = []
    input_fn = ImageFolder.input_fn

    def seen(self, spec, batch_size, *others, **more):
        sizes.append(batch_size)
        return input_fn(self, spec, batch_size, *others, **more)

    monkeypatch.setattr(ImageFolder, "input_fn", seen)
    (run / "data" / "dog" / "notes.jpg").write_text("hello")
    assert "dog/notes.jpg is not a readable" in refused(capsys, "evaluate", f"--model_dir={run}/run")
    skipped, _ = evaluated(capsys, run, "--on_bad_example=skip", "--batch_size=3")
    assert skipped["skipped"] == 1
    record = json.loads((run / "run" / "run.json").read_text())
    record["settings"]["data"]["on_bad_example"] = "skip"
    (run / "run" / "run.json").write_text(json.dumps(record))
    again, _ = evaluated(capsys, run)
    assert again == pytest.approx(skipped, rel=1e-3)  # batches of another size are summed in another order
    assert sizes[-2:] == [3, 8]
    assert "dog/notes.jpg is not a readable" in refused(
        capsys, "evaluate", f"--model_dir={run}/run", "--on_bad_example=error"
    )


def test_data_that_have_moved(run, capsys):
    before, _ = evaluated(capsys, run, "--split=all")
    (run / "data").rename(run / "moved")
    assert refused(capsys, "evaluate", f"--model_dir={run}/run") == (
        f"the data of the run, {run}/data, no longer exist; give data with the same classes by --eval_data."
    )
    after, _ = evaluated(capsys, run, f"--eval_data={run}/moved")
    assert after == before


# Tables of text.


def write_table(path, labels):
    rows = [f"{label},the {label} of {number}" for label in labels for number in range(20)]
    path.write_text("label,text\n" + "".join(f"{row}\n" for row in rows))


@pytest.fixture
def text_run(text_module, tmp_path):
    write_table(tmp_path / "t.csv", ("cat", "road", "tail"))
    flags = {
        "backbone": text_module.handle,
        "train_data": tmp_path / "t.csv",
        "model_dir": tmp_path / "run",
        "train_steps": 60,
        "save_checkpoints_steps": 60,
        "learning_rate": 0.1,
        "test_fraction": 0.2,
    }
    assert main(["train", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    return tmp_path


def test_tables_as_folders(text_run, capsys):
    before, _ = evaluated(capsys, text_run, "--split=all")
    assert before["accuracy"] == 1.0
    write_table(text_run / "t.csv", ("road", "tail"))
    for split in ("train", "test"):
        after, err = evaluated(capsys, text_run, f"--split={split}")
        assert after["accuracy"] == 1.0
        assert f"{text_run}/t.csv no longer has an example of 'cat'" in err
    write_table(text_run / "t.csv", ("cat", "jam", "road", "tail"))
    said = f"{text_run}/t.csv holds the class 'jam', which the run does not know; rename it or take it out of the data"
    assert refused(capsys, "evaluate", f"--model_dir={text_run}/run").startswith(said)
    assert refused(capsys, "train", f"--flagfile={text_run}/run/flags.txt", "--train_steps=61").startswith(said)
    (text_run / "t.csv").unlink()
    assert refused(capsys, "evaluate", f"--model_dir={text_run}/run") == (
        f"the data of the run, {text_run}/t.csv, no longer exist; give data with the same classes by --eval_data."
    )
