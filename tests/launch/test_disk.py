"""A full disk, and checkpoints that are damaged or moved: one line, and the run goes on exactly."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.files import write_whole
from estimator_tl.launch.evaluating.evaluation import read_history
from tests.checkpoints import checkpoint_values
from tests.cli.refusals import refused
from tests.launch.program_estimators import made
from tests.runs import files, train

SHARD = ".data-00000-of-00001"


@contextlib.contextmanager
def limited(size):
    """A block in which a file may have so many bytes, which acts as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def last_line(capsys, *arguments):
    """Runs a command that the user can mend; returns its last line on standard error."""
    assert main(list(arguments)) == 2
    return capsys.readouterr().err.splitlines()[-1]


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("events"))


def flags_of(source, pictures, run, steps, *more):
    given = {"backbone": source.handle, "train_data": pictures, "model_dir": run, "train_steps": steps}
    fixed = {"batch_size": 7, "save_checkpoints_steps": 2, "keep_checkpoint_max": 0, "validation_fraction": 0.2}
    return ["train", *(f"--{name}={value}" for name, value in {**given, **fixed}.items()), *more]


@pytest.fixture(scope="module")
def trained(keras_h5, pictures, tmp_path_factory):
    """A run of six steps, with checkpoints of each second."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(flags_of(keras_h5, pictures, folder, 6)) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path, capsys):
    capsys.readouterr()
    return Path(shutil.copytree(trained, tmp_path / "run"))


def cut(path):
    Path(path).write_bytes(Path(path).read_bytes()[:-3])


def test_a_disk_that_is_full_from_the_first_checkpoint_on(keras_h5, pictures, tmp_path, capsys):
    run = tmp_path / "run"
    with limited(60_000):
        line = last_line(capsys, *flags_of(keras_h5, pictures, run, 4))
    assert line == f"error: cannot write to {run} (File too large); free space there and run the same command again."
    assert not [name for name in names(run) if "ckpt" in name or name.startswith(("checkpoint", "."))]


def test_a_disk_that_is_full_later_keeps_the_last_good_checkpoint(run, keras_h5, pictures, capsys):
    before = {name: value for name, value in files(run).items() if "ckpt" in name or name == "checkpoint"}
    size = (run / f"model.ckpt-6{SHARD}").stat().st_size
    (run / "graph.pbtxt").unlink()
    with limited(size - 1):
        line = last_line(capsys, *flags_of(keras_h5, pictures, run, 7))
    remedy = "free space there and run the same command to go on from model.ckpt-6, which is kept."
    assert line == f"error: cannot write to {run} (File too large); {remedy}"
    after = files(run)
    assert {name: after[name] for name in before} == before
    assert {name for name in after if "ckpt" in name} == {name for name in before if "ckpt" in name}
    assert main(flags_of(keras_h5, pictures, run, 7)) == 0


def test_an_export_on_a_full_disk_leaves_no_half_version(run, tmp_path, capsys):
    export = tmp_path / "some/export"
    with limited(2000):
        line = last_line(capsys, "export", f"--model_dir={run}", f"--export_dir={export}")
    assert line == f"error: cannot write the export to {export} (File too large); choose another --export_dir."
    assert not (tmp_path / "some").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("events.out.tfevents.1; No space left on device\n\tFailed to flush 3 events"), "No space left"),
        (OSError(122, "Disk quota exceeded"), "Disk quota exceeded"),
        (tf.errors.ResourceExhaustedError(None, None, "graph.pbtxt; No space left on device"), "No space left"),
        (tf.errors.OutOfRangeError(None, None, "x_temp/part-0; File too large"), "File too large"),
    ],
)
def test_whatever_cannot_be_written_is_one_line(error, words, keras_h5, tmp_path):
    class Failing(tf.compat.v1.train.CheckpointSaverListener):
        def after_save(self, session, global_step_value):
            if global_step_value == 2:  # amid of training, where the end of data would end it well
                (tmp_path / "model.ckpt-2_temp").mkdir()
                raise error

    model, spec, _ = made(keras_h5, tmp_path, 3, save_checkpoints_steps=2)
    spec = spec._replace(saving_listeners=[Failing()])
    line = f"cannot write to {tmp_path} ({words}"
    with pytest.raises(UserError, match=re.escape(line)):
        etl.train_and_evaluate(model, spec)
    assert not (tmp_path / "model.ckpt-2_temp").exists()


def test_memory_that_runs_out_is_no_full_disk(keras_h5, tmp_path):
    class Failing(tf.compat.v1.train.SessionRunHook):
        def after_run(self, run_context, run_values):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9,9]")

    model, spec, _ = made(keras_h5, tmp_path, 3)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="OOM"):
        etl.train_and_evaluate(model, spec._replace(hooks=[Failing()]))


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_whole(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(f"estimator_tl.files.os.{name}", full)
            with pytest.raises(OSError, match="No space left"):
                write_whole(path, "new")
        assert names(tmp_path) == ["run.json"]
        assert path.read_text() == "old"


def test_a_run_goes_on_exactly_from_the_newest_whole_checkpoint(run, keras_h5, pictures, tmp_path, capsys):
    whole = tmp_path / "whole"
    shutil.copytree(run, whole)
    assert main(flags_of(keras_h5, pictures, whole, 8)) == 0
    state = (run / "checkpoint").read_text()
    (run / "checkpoint").write_text(state.replace(': "', ': "/gone/elsewhere/'))
    cut(run / f"model.ckpt-6{SHARD}")
    capsys.readouterr()
    said = rf"model\.ckpt-6 is damaged \(its {SHARD} file has \d+ bytes, its index lists \d+\) in {run}; "
    assert main(["evaluate", f"--model_dir={run}"]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(rf"{said}taking model\.ckpt-4\n", printed.err)
    metrics = json.loads(printed.out.splitlines()[-1])
    expected = {item["global_step"]: item for item in read_history(str(whole))}
    assert {name: metrics[name] for name in expected[4]} == expected[4]
    assert main(["inspect", f"--model_dir={run}"]) == 0
    assert re.search(rf"^damaged +model\.ckpt-6: its {SHARD} file has", capsys.readouterr().out, re.MULTILINE)

    assert main(flags_of(keras_h5, pictures, run, 8)) == 0
    printed = capsys.readouterr()
    assert len(re.findall(said, printed.err)) == 1
    assert "from step 4 to 8" in printed.out
    ours, theirs = (checkpoint_values(folder / "model.ckpt-8") for folder in (run, whole))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert read_history(str(run)) == read_history(str(whole))
    assert main(["inspect", f"--model_dir={run}"]) == 0
    assert "the checkpoints agree with the plan" in capsys.readouterr().out


def test_a_moved_run_serves_every_command(run, keras_h5, pictures, tmp_path, capsys):
    state = (run / "checkpoint").read_text()
    run = run.rename(tmp_path / "elsewhere")
    (run / "checkpoint").write_text(state.replace(': "', f': "{tmp_path / "run"}/'))
    assert main(["evaluate", f"--model_dir={run}"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["global_step"] == 6
    assert main(["predict", f"--model_dir={run}", f"--input={pictures}"]) == 0
    assert main(["export", f"--model_dir={run}"]) == 0
    capsys.readouterr()
    warm = flags_of(keras_h5, pictures, tmp_path / "warm", 1, f"--warm_start_from={run}")
    assert main(warm) == 0
    assert f"warm start from {run}/model.ckpt-6: backbone and head" in capsys.readouterr().err
    assert main(flags_of(keras_h5, pictures, run, 7)) == 0
    assert "from step 6 to 7" in capsys.readouterr().out


def test_a_program_goes_on_from_the_newest_whole_checkpoint(keras_h5, tmp_path, capsys):
    etl.train_and_evaluate(*made(keras_h5, tmp_path, 4, save_checkpoints_steps=2))
    cut(tmp_path / f"model.ckpt-4{SHARD}")
    capsys.readouterr()
    outcome = etl.train_and_evaluate(*made(keras_h5, tmp_path, 6, save_checkpoints_steps=2))
    assert (outcome.global_step, outcome.steps) == (6, 4)
    assert capsys.readouterr().err.count("model.ckpt-4 is damaged (") == 1
    assert [item["global_step"] for item in read_history(str(tmp_path))] == [2, 4, 6]


def test_an_estimator_of_its_own_goes_on_from_the_newest_whole_checkpoint(keras_h5, tmp_path, capsys):
    model, spec, _ = made(keras_h5, tmp_path, 4, save_checkpoints_steps=2)
    model.train(spec.input_fn, max_steps=4)
    cut(tmp_path / f"model.ckpt-4{SHARD}")
    model.train(spec.input_fn, steps=3)
    assert "model.ckpt-4 is damaged (" in capsys.readouterr().err
    assert int(model.get_variable_value("global_step")) == 5


def test_values_with_another_checksum_are_named(run, capsys):
    path = run / f"model.ckpt-6{SHARD}"
    content = bytearray(path.read_bytes())
    path.write_bytes(bytes(len(content)))  # as a machine that lost its power leaves it
    line = refused(capsys, "evaluate", f"--model_dir={run}")
    assert line == (
        f"error: {run}/model.ckpt-6 is damaged (its checksum differs); copy it again, or remove its "
        ".index file to go on from an older one.\n"
    )


def test_checkpoints_without_their_list_are_not_begun_over(run, keras_h5, pictures, capsys):
    (run / "checkpoint").unlink()
    before = files(run)
    line = f"error: {run} holds checkpoints up to model.ckpt-6, but its file checkpoint, which lists them, is missing;"
    for command in (flags_of(keras_h5, pictures, run, 8), ["evaluate", f"--model_dir={run}"]):
        assert refused(capsys, *command).startswith(line)
    assert files(run) == before
    (run / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-6"\n')  # as the message says
    assert main(["evaluate", f"--model_dir={run}"]) == 0


def test_a_plan_is_changed_in_a_relative_folder(keras_h5, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train("runs/a", keras_h5, pictures, 2)
    train("runs/a", keras_h5, pictures, 4, "--allow_plan_change", "--optimizer=adam", "--tuning=last_layers(3)")
    assert "from step 2 to 4" in capsys.readouterr().out
    state = tf.train.get_checkpoint_state("runs/a")
    assert Path(state.model_checkpoint_path) == Path("runs/a/model.ckpt-4")
    assert all(Path(f"{path}.index").is_file() for path in state.all_model_checkpoint_paths)
