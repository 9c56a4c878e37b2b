"""``estimator-tl train``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from estimator_tl.cli.cluster_flags import cluster_of, define_cluster
from estimator_tl.cli.command import Command, CommandFlags, refuse_arguments
from estimator_tl.cli.export import export
from estimator_tl.config import DataSpec, EvaluationSpec, LaunchSpec, ModelSpec, RunSpec, TrainingSpec
from estimator_tl.errors import UserError

if TYPE_CHECKING:
    from estimator_tl.launch.outcome import Outcome

_OUTPUT = "Output"


def define(command: CommandFlags) -> None:
    """Adds the flags of train."""
    command.define(ModelSpec)
    command.define(DataSpec)
    command.define(TrainingSpec)
    command.string(_OUTPUT, "model_dir", None, "The run directory. An existing run of the same model continues.")
    command.string(_OUTPUT, "export_dir", None, "Export the trained model there, for TF Serving.")
    command.common |= {"model_dir", "export_dir"}
    command.define(EvaluationSpec)
    define_cluster(command)
    command.define(LaunchSpec)


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Trains and evaluates a run, and exports it if --export_dir is set."""
    values = command.values
    refuse_arguments("train", arguments)
    if not values.model_dir:
        raise UserError("no --model_dir given; name a folder for the run.")
    spec = RunSpec(
        model=command.spec(ModelSpec),
        data=command.spec(DataSpec),
        training=command.spec(TrainingSpec),
        evaluation=command.spec(EvaluationSpec),
        launch=command.spec(LaunchSpec),
    )
    cluster = cluster_of(values, os.environ)
    from estimator_tl.launch.run.run_dir import check_writable
    from estimator_tl.launch.training import train

    if values.export_dir:
        check_writable(values.export_dir)
    flags_text = command.text(leave_out=("debug", "help", "helpfull", "flagfile", "allow_plan_change"))
    outcome = train(spec, values.model_dir, flags_text, cluster=cluster)
    _print_outcome(outcome)
    if outcome.stop and outcome.stop.resumes:
        return outcome.exit_code
    print(f"{outcome.steps} steps in {outcome.seconds:.1f} s; run kept in {values.model_dir}")
    if values.export_dir and (cluster is None or cluster.is_chief):
        print(f"exported to {export(values.model_dir, values.export_dir)}")
    sys.stdout.flush()
    return 0


def _print_outcome(outcome: Outcome) -> None:
    from estimator_tl.launch.hooks.progress import metrics_text

    if outcome.metrics:
        print(f"step {outcome.global_step}: {metrics_text(outcome.metrics)}")
    if outcome.stop:
        print(f"stopped at step {outcome.global_step}: {outcome.stop.reason}", file=sys.stderr)
        if outcome.stop.resumes:
            saved = "the checkpoint is saved; " if outcome.global_step else ""
            print(f"{saved}run the same command to go on", file=sys.stderr)


COMMAND = Command(
    "train and evaluate a model on a pretrained backbone",
    "estimator-tl train --backbone=PATH --train_data=FOLDER --model_dir=FOLDER --tuning=frozen",
    define,
    run,
)
