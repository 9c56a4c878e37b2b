"""``estimator-tl export``."""

from __future__ import annotations

import os

from estimator_tl.cli.command import Command, CommandFlags, refuse_arguments
from estimator_tl.errors import UserError


def define(command: CommandFlags) -> None:
    """Adds the flags of export."""
    command.string("Run", "model_dir", None, "The run directory.")
    command.string("Output", "export_dir", None, "Folder of the versions. The default is MODEL_DIR/export/serving.")


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Exports; the last line of standard output is the folder of the new version."""
    values = command.values
    refuse_arguments("export", arguments)
    if not values.model_dir:
        raise UserError("no --model_dir given; name the run to export.")
    print(export(values.model_dir, values.export_dir or os.path.join(values.model_dir, "export", "serving")))
    return 0


def export(model_dir: str, export_dir: str) -> str:
    """Exports a run and returns the folder of the new version."""
    from estimator_tl.export import export_saved_model
    from estimator_tl.launch.run import run_dir, session

    run_dir.check_writable(export_dir)
    run = session.open_run(model_dir)
    return export_saved_model(run.estimator, export_dir, run.backbone.input_spec, run.saved.labels, run.checkpoint)


COMMAND = Command(
    "write a SavedModel for TF Serving", "estimator-tl export --model_dir=FOLDER --export_dir=FOLDER", define, run
)
