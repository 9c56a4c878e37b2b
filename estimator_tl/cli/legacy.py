"""`estimator-tl legacy`: run an existing tf.estimator program unchanged."""

from __future__ import annotations

from estimator_tl.cli.command import Command, CommandFlags
from estimator_tl.errors import UserError


def _define(command: CommandFlags) -> None:
    """Defines no flag: all flags belong to the program."""


def _run(command: CommandFlags, arguments: list[str]) -> int:
    from estimator_tl.revival import program

    first, *rest = arguments
    if first == "-m":
        if not rest:
            raise UserError("legacy: -m needs the name of a module, as in `estimator-tl legacy -m package.trainer`.")
        return program.run_module(rest[0], rest[1:])
    if first.startswith("-"):
        raise UserError(f"legacy: unknown flag {first}; give the script first, then the script's own flags.")
    return program.run_script(first, rest)


COMMAND = Command(
    summary=(
        "Runs a tf.estimator program as Python would, on a TensorFlow that has no Estimator:\n"
        "tf.estimator is put back, tf.keras is Keras 2; arguments, output and exit code are the program's."
    ),
    usage="estimator-tl legacy SCRIPT [ARGUMENTS]\n  estimator-tl legacy -m MODULE [ARGUMENTS]",
    define=_define,
    run=_run,
    own_flags=False,
)
