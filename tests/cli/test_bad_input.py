"""Mistakes get one line, exit code 2, and leave nothing behind."""

from __future__ import annotations

import json
import shutil

import pytest

from estimator_tl.cli.main import main
from tests.cli.refusals import refused
from tests.tiny import write_pictures


@pytest.fixture
def flags(hub_module, pictures, tmp_path):
    """Flags of a training that would work, by name."""
    return {
        "backbone": hub_module.handle,
        "train_data": str(pictures),
        "model_dir": str(tmp_path / "run"),
        "epochs": "1",
    }


def train(capsys, flags, **changes):
    given = {**flags, **changes}
    line = refused(capsys, "train", *(f"--{name}={value}" for name, value in given.items() if value is not None))
    return line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_data": "/nowhere"}, "data folder /nowhere does not exist"),
        ({"train_data": None}, "--train_data"),
        ({"model_dir": None}, "--model_dir"),
        ({"backbone": None}, "--backbone"),
        ({"backbone": "/nowhere/model"}, "no such file or folder"),
        ({"backbone": "keras.MobilNet"}, "did you mean 'MobileNet'"),
        ({"tuning": "last_layer(3)"}, "did you mean 'last_layers'"),
        ({"tuning": "last_layers(3)"}, "Its groups, input first: stem/conv1"),
        ({"tuning": "scopes('stem/conv2')"}, "matches no trainable variable"),
        ({"tuning": "last_groups(4)"}, "selects every trainable variable"),
        ({"tuning": "last_groups(2)", "batch_norm": "train"}, "one training switch"),
        ({"tuning": "linear_probe_then_full(5000)"}, "would begin at step 5000, but training ends at step"),
        ({"tuning": "phases(phase(frozen, 5), phase(frozen, 3), full)"}, "out of order"),
        ({"tuning": "phase(full)"}, "a part of phases(...)"),
        ({"batch_norm": "maybe"}, "batch_norm"),
        ({"head": "classifer"}, "did you mean 'classifier'"),
        ({"head": "classifier(dropuot=0.1)"}, "did you mean 'dropout'"),
        ({"optimizer": "admm"}, "did you mean 'adam'"),
        ({"learning_rate": "fast"}, "learning-rate schedule"),
        ({"learning_rate": "-0.1"}, "learning_rate"),
        ({"image_size": "224"}, "height 8 only"),
        ({"pooling": "none", "backbone": "keras.MobileNet(weights=None, alpha=0.25, image_size=32)"}, "--pooling"),
        ({"input_range": "0"}, "two numbers"),
        ({"input_range": "1,0"}, "must rise"),
        ({"batch_size": "0"}, "batch_size"),
        ({"batch_size": "many"}, "batch_size"),
        ({"train_steps": "5"}, "both train_steps and epochs"),
        ({"validation_fraction": "1.0"}, "below 1"),
        ({"bakbone": "x"}, "backbone"),
        ({"import_modules": "no_such_module"}, "cannot be imported"),
        ({"flagfile": "/nowhere.flags"}, "/nowhere.flags"),
    ],
)
def test_settings(capsys, flags, tmp_path, change, message):
    assert message in train(capsys, flags, **change)
    assert not (tmp_path / "run").exists()


def test_text_file_called_jpg_is_named(capsys, flags, tmp_path):
    write_pictures(tmp_path / "data")
    (tmp_path / "data" / "dog" / "notes.jpg").write_text("hello")
    line = train(capsys, flags, train_data=tmp_path / "data")
    assert "dog/notes.jpg is not a readable" in line
    assert "--on_bad_example=skip" in line
    assert not (tmp_path / "run").exists()


def test_skipped_pictures_are_counted(capsys, flags, tmp_path):
    write_pictures(tmp_path / "data")
    (tmp_path / "data" / "dog" / "notes.jpg").write_text("hello")
    given = {**flags, "train_data": tmp_path / "data", "on_bad_example": "skip"}
    assert main(["train", *(f"--{name}={value}" for name, value in given.items())]) == 0
    assert "skipped 1 unreadable images: dog/notes.jpg" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["skipped"] == ["dog/notes.jpg"]


def test_picture_cut_off_in_the_middle_is_named(capsys, flags, tmp_path):
    """Its first bytes are right, so only the pipeline finds it; the message names it all the same."""
    write_pictures(tmp_path / "data")
    cut = tmp_path / "data" / "dog" / "000.png"
    cut.write_bytes(cut.read_bytes()[:60])
    assert "dog/000.png is not a readable" in train(
        capsys, flags, train_data=tmp_path / "data", train_steps="20", epochs=None, validation_fraction="0"
    )


def test_one_class_and_empty_class(capsys, flags, tmp_path):
    write_pictures(tmp_path / "one", ("only",))
    assert "one class (only)" in train(capsys, flags, train_data=tmp_path / "one")
    write_pictures(tmp_path / "data")
    (tmp_path / "data" / "zebra").mkdir()
    assert "class 'zebra'" in train(capsys, flags, train_data=tmp_path / "data")
    assert not (tmp_path / "run").exists()


def test_model_dir_of_another_run(capsys, flags, tmp_path):
    (tmp_path / "run").mkdir()
    assert main(["train", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    capsys.readouterr()
    before = sorted(p.name for p in (tmp_path / "run").iterdir())
    line = train(capsys, flags, tuning="full")
    assert "tuning is 'frozen' there and 'full' here" in line
    write_pictures(tmp_path / "data", ("cat", "dog"))
    line = train(capsys, flags, train_data=tmp_path / "data")
    assert f"{tmp_path}/data has no class 'owl', which the run in {tmp_path}/run began with; put it back" in line
    shutil.copytree(flags["backbone"], tmp_path / "changed")
    (tmp_path / "changed" / "extra.txt").write_text("x")
    assert "backbone is" in train(capsys, flags, backbone=tmp_path / "changed")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == before


def test_model_dir_of_another_program(capsys, flags, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-5"\n')
    assert "another program" in train(capsys, flags)


def test_no_permission_to_write(capsys, flags, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot write to" in train(capsys, flags, model_dir=tmp_path / "file" / "run")
    assert "cannot write to" in train(capsys, flags, export_dir="/proc/nowhere/export")
    assert not (tmp_path / "run").exists()


def test_commands_on_a_folder_without_a_run(capsys, tmp_path):
    for command in ("evaluate", "export", "inspect"):
        assert "holds no run" in refused(capsys, command, f"--model_dir={tmp_path}")
    (tmp_path / "x.png").write_bytes(b"")
    for command in ("evaluate", "export", "predict"):
        assert "no --model_dir given" in refused(capsys, command)


def test_predict_input(capsys, tmp_path, pictures):
    run = f"--model_dir={tmp_path}"
    assert "no --input given" in refused(capsys, "predict", run)
    assert "holds no run" in refused(capsys, "predict", run, f"--input={pictures}/cat")


def test_unknown_command_and_stray_arguments(capsys):
    assert "did you mean 'train'" in refused(capsys, "trian")
    assert "flags only" in refused(capsys, "train", "data")
    assert "one of --backbone and --model_dir" in refused(capsys, "inspect")


def test_debug_shows_the_traceback(capsys):
    assert main(["train", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_help_lists_own_flags_in_groups(capsys):
    assert main(["predict", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "\nOutput:\n  --format" in printed
    assert "--train_data" not in printed
    assert main([]) == 0
    assert "evaluate  print the metrics" in capsys.readouterr().out
