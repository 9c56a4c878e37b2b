"""The entry point: finds the command, reads its flags, and turns errors into exit codes."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from estimator_tl.cli.command import Command, CommandFlags, define_common
from estimator_tl.errors import STALLED_EXIT_CODE, LostPeersError, UserError, nearest

# The summary of each command; the module of the same name is imported when the command is called.
COMMANDS = {
    "train": "train and evaluate a model on a pretrained backbone",
    "evaluate": "print the metrics of a run as JSON",
    "predict": "classify images or text with a run",
    "export": "write a SavedModel for TF Serving",
    "inspect": "show a backbone, what a tuning policy would train, or a run",
    "doctor": "check what a run needs: versions, devices, cluster, folders, data, one step",
    "legacy": "run an existing tf.estimator program unchanged, on any TensorFlow",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code: 0 for success, 2 for an error that the user can fix, 1 for a bug."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if args[0] == "--version":
        import estimator_tl

        print(estimator_tl.__version__)
        return 0
    name, rest = args[0], args[1:]
    debug = "--debug" in rest
    try:
        return _dispatch(name, rest)
    except (UserError, ImportError) as error:
        if debug or (isinstance(error, ImportError) and not str(error)):
            traceback.print_exc()
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except LostPeersError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return STALLED_EXIT_CODE
    except KeyboardInterrupt:
        print("error: interrupted; the last checkpoint is kept, run the same command to go on.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1


def _dispatch(name: str, rest: list[str]) -> int:
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}; {nearest(name, COMMANDS)}")
    command: Command = importlib.import_module(f"estimator_tl.cli.{name}").COMMAND
    command_flags = CommandFlags()
    if not command.own_flags:
        if rest[:1] in ([], ["-h"], ["--help"], ["--helpfull"]):
            print(f"{command.summary}\n\n  {command.usage}")
            return 0
        return command.run(command_flags, rest)
    command.define(command_flags)
    define_common(command_flags)
    remaining = command_flags.parse(name, rest)
    if command_flags.values.help or command_flags.values.helpfull:
        print(f"{command.summary}\n\n  {command.usage}\n{command_flags.help(full=command_flags.values.helpfull)}")
        return 0
    _prepare(command_flags)
    return command.run(command_flags, remaining)


def _prepare(command_flags: CommandFlags) -> None:
    from estimator_tl.compat import keras2, quiet

    keras2.let_tf_keras_be_keras2()
    if getattr(command_flags.values, "precision", None) == "bfloat16":
        # oneDNN has the passes for bfloat16; TensorFlow reads the variable at its import.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    level = command_flags.values.verbosity
    if level != "debug":
        quiet.import_tensorflow_quietly()
    quiet.set_log_level(level)
    for module in command_flags.values.import_modules:
        try:
            importlib.import_module(module)
        except (ImportError, AttributeError) as error:
            problem = keras2.keras2_advice_for(error)
            if not problem and not isinstance(error, ImportError):
                raise
            remedy = problem or "check PYTHONPATH"
            raise UserError(f"--import_modules: {module} cannot be imported ({error}); {remedy}.") from error


def _overview() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name.ljust(width)}  {text}" for name, text in COMMANDS.items())
    return (
        "Transfer learning on the TensorFlow Estimator API.\n\nusage: estimator-tl COMMAND [flags]\n\n"
        f"{commands}\n\nestimator-tl COMMAND --help lists the flags of a command."
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
