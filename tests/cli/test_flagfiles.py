"""Flagfiles: what is wrong with one is one line that names the file and the line."""

from __future__ import annotations

import pytest

from estimator_tl.cli import train
from estimator_tl.cli.command import CommandFlags, define_common
from estimator_tl.cli.main import main


def parsed(*arguments):
    flags = CommandFlags()
    train.define(flags)
    define_common(flags)
    assert flags.parse("train", arguments) == []
    return flags.values


def refused(capsys, *arguments):
    assert main(["train", *map(str, arguments)]) == 2
    line, end = capsys.readouterr().err.split("\n")
    assert not end
    return line


@pytest.fixture
def write(tmp_path):
    def write(content, name="a.flags"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_file_that_is_not_there(capsys, tmp_path):
    path = tmp_path / "none.flags"
    said = f"error: flagfile {path} cannot be read (No such file or directory); check the path."
    assert refused(capsys, f"--flagfile={path}") == said
    assert refused(capsys, "--flagfile", path) == said
    assert refused(capsys, f"-flagfile={path}") == said


def test_a_folder(capsys, tmp_path):
    said = f"error: flagfile {tmp_path} cannot be read (Is a directory); check the path."
    assert refused(capsys, f"--flagfile={tmp_path}") == said


def test_no_name(capsys, write):
    said = "error: --flagfile names no file; write --flagfile=FILE."
    assert refused(capsys, "--flagfile=") == said
    assert refused(capsys, "--flagfile") == said
    assert refused(capsys, f"--flagfile={write('--flagfile=')}") == said


def test_a_name_with_a_null_character(capsys):
    assert (
        refused(capsys, "--flagfile=a\0b")
        == "error: flagfile a\0b cannot be read (embedded null byte); check the path."
    )


def test_a_file_that_is_not_text(capsys, write):
    path = write(b"--batch_size=3\n--model_dir=caf\xe9\n")
    said = f"error: flagfile {path} line 2 is not UTF-8 text; save the file as UTF-8, one flag a line."
    assert refused(capsys, f"--flagfile={path}") == said


def test_a_nested_file_that_is_not_there(capsys, write, tmp_path):
    inner = tmp_path / "inner.flags"
    outer = write(f"--flagfile={inner}\n")
    assert refused(capsys, f"--flagfile={outer}") == (
        f"error: flagfile {inner} (named by {outer}) cannot be read (No such file or directory); check the path."
    )


def test_files_in_a_circle(capsys, write, tmp_path):
    first, second = tmp_path / "a.flags", tmp_path / "b.flags"
    write(f"--flagfile={second}\n", "a.flags")
    write(f"--flagfile={first}\n", "b.flags")
    assert refused(capsys, f"--flagfile={first}") == (
        f"error: flagfile {first} reads itself ({first} -> {second} -> {first}); take one of these lines out."
    )


def test_what_is_wrong_with_a_line(capsys, write):
    path = write("# a comment\n\n--bakbone=x\n")
    line = refused(capsys, f"--flagfile={path}")
    assert line.startswith(
        f"error: flagfile {path} line 3: Unknown command line flag 'bakbone'. Did you mean: backbone"
    )
    path = write("--batch_size=0\n")
    assert refused(capsys, f"--flagfile={path}") == (
        f"error: flagfile {path} line 1: --batch_size=0 must be at least 1."
    )
    path = write("--train_data=x\nbatch_size=3\n")
    assert refused(capsys, f"--flagfile={path}") == (
        f"error: flagfile {path} line 2: 'batch_size=3' is not a flag; write --name=value."
    )
    inner = write("--verbosity=loud\n", "inner.flags")
    path = write(f"--batch_size=3\n--flagfile={inner}\n")
    assert refused(capsys, f"--flagfile={path}").startswith(
        f"error: flagfile {inner} line 1: flag --verbosity=loud: value should be one of"
    )


def test_lines_of_several_files(write):
    inner = write("\ufeff--batch_size=3\r\n--xla\r\n// a comment\r\n", "inner.flags")
    outer = write(f"--batch_size=2\n  --flagfile={inner}\n--tuning=phases(frozen, full)\n")
    values = parsed(f"--flagfile={outer}", "--seed=4")
    assert (values.batch_size, values.xla, values.tuning, values.seed) == (3, True, "phases(frozen, full)", 4)


def test_the_command_line_wins_wherever_it_stands(write):
    path = write("--batch_size=3\n--noxla\n")
    assert parsed(f"--flagfile={path}", "--batch_size=5").batch_size == 5
    values = parsed("--batch_size=5", "--xla", f"--flagfile={path}")
    assert (values.batch_size, values.xla) == (5, True)
    assert parsed("--batch_size", "5", "--flagfile", str(path)).batch_size == 5


def test_values_that_look_like_a_flagfile(write):
    path = write("--batch_size=3\n")
    values = parsed("--model_dir", "flagfile", f"--flagfile={path}")
    assert (values.model_dir, values.batch_size) == ("flagfile", 3)


def test_names_that_may_be_unknown(write):
    path = write("--of_another_program=3\n--batch_size=3\n")
    assert parsed(f"--flagfile={path}", "--undefok=of_another_program").batch_size == 3
    path = write("--undefok=of_another_program\n--of_another_program=3\n--batch_size=3\n")
    assert parsed(f"--flagfile={path}").batch_size == 3
