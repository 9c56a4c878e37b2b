"""Each number of each command: what it cannot be is refused while the command line is read, before TensorFlow."""

from __future__ import annotations

import importlib

import pytest

from estimator_tl.cli import parsers
from estimator_tl.cli.command import CommandFlags, define_common
from estimator_tl.cli.main import COMMANDS, main
from estimator_tl.config import EvaluationSpec, LaunchSpec, TrainingSpec
from estimator_tl.errors import UserError
from estimator_tl.inputs.splits import check_fractions

#: Flags that 0 has a meaning for, or that may be any number.
MAY_BE_0 = {
    *("validation_fraction", "test_fraction", "keep_checkpoint_max", "num_gpus", "stall_minutes", "inter_op_threads"),
    *("intra_op_threads", "keep_checkpoint_every_n_hours", "log_norms", "eval_throttle_secs", "task_index"),
}
ANY = {"seed", "stop_at"}
#: Highest values of flags whose bound is not that of their kind.
HIGHEST = {
    **{"validation_fraction": 1.0, "test_fraction": 1.0, "gpu_memory_fraction": 1.1, "slurm_port_base": 65536},
    **{"image_size": 65536, "cpu_replicas": 1025, "inter_op_threads": 4097, "intra_op_threads": 4097},
}


def defined(name):
    command = importlib.import_module(f"estimator_tl.cli.{name}").COMMAND
    flags = CommandFlags()
    if command.own_flags:
        command.define(flags)
        define_common(flags)
    return flags


def numeric(flags):
    """Returns the parser of each numeric flag."""
    return {
        name: flags.values[name].parser for name in flags.values if flags.values[name].flag_type() in ("int", "float")
    }


FLAGS = [(command, name) for command in COMMANDS for name in numeric(defined(command))]


def refused(capsys, command, flag, value):
    code = main([command, f"--{flag}={value}"])
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    line, end = printed.err.split("\n")
    assert not end
    beginning = f"error: --{flag}={value} must be "
    assert line.startswith(beginning), line
    return line.removeprefix(beginning)


def test_there_are_such_flags():
    assert {
        ("evaluate", "batch_size"),
        ("predict", "batch_size"),
        ("train", "epochs"),
        ("inspect", "image_size"),
    } < set(FLAGS)
    assert len(FLAGS) > 60


@pytest.mark.parametrize("command", COMMANDS)
def test_every_number_has_bounds(command):
    """A flag that is defined past `CommandFlags` would have none."""
    for parser in numeric(defined(command)).values():
        assert isinstance(parser, (parsers.IntegerParser, parsers.NumberParser))


@pytest.mark.parametrize(("command", "flag"), FLAGS)
def test_impossible_values(capsys, command, flag):
    whole = isinstance(numeric(defined(command))[flag], parsers.IntegerParser)
    kind = "a whole number." if whole else "a number."
    for text in ("many", "", "1,5", "--1"):
        assert refused(capsys, command, flag, text) == kind
    for text in ("nan", "inf", "-inf", "1e400"):
        assert refused(capsys, command, flag, text) == ("a whole number." if whole else "a finite number.")
    if whole:
        assert refused(capsys, command, flag, "1.5") == kind
        assert refused(capsys, command, flag, 10**30).startswith("at most ")
        assert refused(capsys, command, flag, -(10**30)).startswith("at least ")
    if flag not in ANY:
        assert refused(capsys, command, flag, -1) in ("at least 0.", "at least 1.", "above 0.")
    if flag not in {*ANY, *MAY_BE_0}:
        assert refused(capsys, command, flag, 0) in ("at least 1.", "above 0.")
    if flag in HIGHEST:
        assert refused(capsys, command, flag, HIGHEST[flag]).startswith(("at most ", "below "))


@pytest.mark.parametrize(("command", "flag"), FLAGS)
def test_defaults_and_bounds_are_possible(command, flag):
    flags = defined(command)
    parser = numeric(flags)[flag]
    if flags.values[flag].default is not None:
        parser.parse(flags.values[flag].default)
    if flag in MAY_BE_0:
        assert parser.parse("0") == 0
    if flag not in ("validation_fraction", "test_fraction"):
        assert parser.parse("1") == 1


@pytest.mark.parametrize("text", ["nan,1", "0,inf", "-inf,inf"])
def test_ranges_are_finite(capsys, tmp_path, text):
    assert main(["train", f"--input_range={text}", f"--model_dir={tmp_path}", "--backbone=x", "--train_data=x"]) == 2
    assert capsys.readouterr().err == f"error: --input_range={text} must be two finite numbers, e.g. -1,1.\n"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingSpec(epochs=float("nan")), "epochs nan must be a finite number."),
        (lambda: EvaluationSpec(eval_every_secs=float("nan")), "eval_every_secs nan must be a finite number."),
        (lambda: EvaluationSpec(eval_throttle_secs=float("nan")), "eval_throttle_secs nan must be a finite number."),
        (lambda: EvaluationSpec(stop_at=float("nan")), "stop_at nan must be a finite number"),
        (lambda: LaunchSpec(max_run_hours=float("nan")), "max_run_hours nan must be a finite number."),
        (lambda: LaunchSpec(stall_minutes=float("nan")), "stall_minutes nan must be a finite number."),
        (lambda: LaunchSpec(log_step_count_steps=-1), "log_step_count_steps -1 must be at least 1."),
        (lambda: check_fractions(float("nan"), 0.0), "validation_fraction nan and test_fraction 0 must be"),
    ],
)
def test_programs_are_refused_the_same(make, message):
    with pytest.raises(UserError, match=message):
        make()
