"""The newest checkpoint of a folder: damaged ones, moved folders, names that are patterns."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.inputs import latest_step
from estimator_tl.tf_internals.files.bundles import damage
from estimator_tl.tf_internals.files.checkpoint_state import correct_state, listed_checkpoints, newest_checkpoint
from tests.runs import files, save_checkpoint

SHARD = ".data-00000-of-00001"


def cut(path, count=1):
    """Cuts bytes off the end of a file."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:-count])


@pytest.fixture
def run(tmp_path):
    """A folder with checkpoints of the steps 10, 20 and 30."""
    folder = tmp_path / "run"
    folder.mkdir()
    for step in (10, 20, 30):
        save_checkpoint(folder, step)
    return folder


def test_a_checkpoint_is_whole_to_its_last_byte(run):
    prefix = str(run / "model.ckpt-30")
    size, index = (run / f"model.ckpt-30{SHARD}").stat().st_size, (run / "model.ckpt-30.index").read_bytes()
    assert damage(prefix) == ""
    cut(prefix + SHARD)  # the last value is a text, which has no shape that tells its size
    assert damage(prefix) == f"its {SHARD} file has {size - 1} bytes, its index lists {size}"
    Path(prefix + SHARD).unlink()
    assert damage(prefix) == f"its {SHARD} file is missing"
    for length in (*range(0, len(index), 37), len(index) - 1):
        Path(f"{prefix}.index").write_bytes(index[:length])
        assert damage(prefix) == "its .index file is damaged", length
    Path(f"{prefix}.index").unlink()
    assert damage(prefix) == "its .index file is missing"


def test_each_shard_is_looked_at(tmp_path):
    with (
        tf.Graph().as_default(),
        tf.compat.v1.Session(config=tf.compat.v1.ConfigProto(device_count={"CPU": 2})) as session,
    ):
        for number in (0, 1):
            with tf.device(f"/cpu:{number}"):
                tf.compat.v1.get_variable(f"v{number}", [100])
        session.run(tf.compat.v1.global_variables_initializer())
        prefix = tf.compat.v1.train.Saver(sharded=True).save(session, str(tmp_path / "m.ckpt"))
    assert damage(prefix) == ""
    # As of another save: in the sum of all files' sizes nothing is missing.
    shutil.copy(f"{prefix}.data-00000-of-00002", f"{prefix}{SHARD}")
    cut(f"{prefix}.data-00001-of-00002", 8)
    assert damage(prefix) == "its .data-00001-of-00002 file has 392 bytes, its index lists 400"


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda run: cut(run / f"model.ckpt-30{SHARD}", 5), r"its \.data-00000-of-00001 file has \d+ bytes, .* lists"),
        (lambda run: cut(run / "model.ckpt-30.index", 5), r"its \.index file is damaged"),
        (lambda run: (run / "model.ckpt-30.index").write_bytes(b""), r"its \.index file is damaged"),
        (lambda run: (run / "model.ckpt-30.index").unlink(), r"its \.index file is missing"),
        (lambda run: (run / f"model.ckpt-30{SHARD}").unlink(), r"its \.data-00000-of-00001 file is missing"),
    ],
)
def test_a_damaged_one_is_passed_over_and_named(spoil, fault, run, capsys):
    spoil(run)
    newest = newest_checkpoint(str(run))
    assert (newest.path, newest.step, latest_step(str(run))) == (str(run / "model.ckpt-20"), 20, 20)
    newest.report_damaged()
    said = rf"model\.ckpt-30 is damaged \({fault}.*\) in {re.escape(str(run))}; taking model\.ckpt-20\n"
    assert re.fullmatch(said, capsys.readouterr().err)
    correct_state(str(run))
    assert tf.train.latest_checkpoint(str(run)) == str(run / "model.ckpt-20")
    assert newest_checkpoint(str(run)).damaged == ()


def test_one_that_the_list_has_lost_is_taken_too(run):
    state = 'model_checkpoint_path: "model.ckpt-30"\nall_model_checkpoint_paths: "model.ckpt-30"\n'
    (run / "checkpoint").write_text(state)
    save_checkpoint(run / "..", 25)  # of another folder
    cut(run / f"model.ckpt-30{SHARD}")
    assert newest_checkpoint(str(run)).path == str(run / "model.ckpt-20")


@pytest.mark.parametrize("content", [b"", b'model_checkpoint_path: "mod', b"\0" * 60, b"\xff\xfe"])
def test_a_list_that_is_not_readable_is_made_again(content, run, capsys):
    (run / "checkpoint").write_bytes(content)
    newest = newest_checkpoint(str(run))
    newest.report_damaged()
    assert newest.path == str(run / "model.ckpt-30")
    assert capsys.readouterr().err == f"checkpoint is damaged (it is not readable) in {run}; taking model.ckpt-30\n"
    correct_state(str(run))
    assert tf.train.latest_checkpoint(str(run)) == str(run / "model.ckpt-30")


def test_no_whole_one_is_one_clear_error(run):
    for step in (10, 20, 30):
        (run / f"model.ckpt-{step}.index").write_bytes(b"")
    faults = ", ".join(f"model.ckpt-{step} is damaged (its .index file is damaged)" for step in (30, 20, 10))
    message = f"no checkpoint in {run} is whole: {faults}; copy the run again, or remove its file checkpoint to begin"
    for asked in (newest_checkpoint, latest_step, correct_state):
        with pytest.raises(UserError, match=re.escape(message)):
            asked(str(run))


def test_without_a_list_there_is_none(tmp_path, run):
    (run / "checkpoint").unlink()
    assert [newest_checkpoint(str(path)) for path in (run, tmp_path, tmp_path / "missing", "")] == [None] * 4
    assert latest_step(None) == 0


@pytest.mark.parametrize("copied", [False, True])
def test_a_moved_or_copied_folder_lists_absolute_paths(copied, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    for step in (10, 20):
        save_checkpoint(old, step, relative=False)
    assert f'"{old}/model.ckpt-20"' in (old / "checkpoint").read_text()
    if copied:
        shutil.copytree(old, new)
        before = files(old)
    else:
        old.rename(new)
    assert newest_checkpoint(str(new)).path == str(new / "model.ckpt-20")
    correct_state(str(new))
    assert (new / "checkpoint").read_text() == (
        'model_checkpoint_path: "model.ckpt-20"\n'
        'all_model_checkpoint_paths: "model.ckpt-10"\nall_model_checkpoint_paths: "model.ckpt-20"\n'
    )
    if copied:  # a saver removes what its list has: that must not be the other folder's
        for step in range(30, 100, 10):
            save_checkpoint(new, step)
        assert files(old) == before


def test_relative_folders_and_paths(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    for folder in ("run", "./run", "run/", "../" + run.parent.name + "/run"):
        assert Path(newest_checkpoint(folder).path).resolve() == run / "model.ckpt-30"
        (run / "checkpoint").write_text(f'model_checkpoint_path: "{run}/model.ckpt-20"\n')
        correct_state(folder)
        assert [Path(path).resolve() for path in listed_checkpoints(folder)] == [run / "model.ckpt-20"]
        (run / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-30"\n')
    monkeypatch.chdir(run)
    assert Path(newest_checkpoint(".").path).resolve() == run / "model.ckpt-30"


def test_the_place_in_the_input_goes_back_with_the_checkpoint(run):
    for step in (20, 30):
        for file in run.glob(f"model.ckpt-{step}.*"):
            shutil.copy(file, run / file.name.replace("model", "input"))
    names = "".join(f'all_model_checkpoint_paths: "/elsewhere/input.ckpt-{step}"\n' for step in (20, 30))
    (run / "checkpoint_input").write_text(f'model_checkpoint_path: "/elsewhere/input.ckpt-30"\n{names}')
    correct_state(str(run))
    assert tf.train.latest_checkpoint(str(run), "checkpoint_input") == str(run / "input.ckpt-30")
    cut(run / f"model.ckpt-30{SHARD}")
    correct_state(str(run))
    assert tf.train.latest_checkpoint(str(run), "checkpoint_input") == str(run / "input.ckpt-20")


@pytest.mark.parametrize("name", ["exp[lr=0.1]", "a\\b", "[!x]"])
def test_a_name_that_is_a_pattern_is_refused(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1"\n')
    message = f"model_dir {folder}: TensorFlow takes [ ], \\, * and ? in a path as a pattern and would not find the "
    with pytest.raises(UserError, match=re.escape(message)):
        latest_step(str(folder))


@pytest.mark.parametrize("name", ["a{b,c}", "a[b", "a]b", "a*b", "a?b", "a b,c", "ü#%~$"])
def test_other_names_are_read(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    save_checkpoint(folder, 7)
    assert latest_step(str(folder)) == 7
