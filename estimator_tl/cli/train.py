"""``estimator-tl train``."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any

from estimator_tl.cli import numeric_flags
from estimator_tl.cli.cluster_flags import cluster_of, define_cluster
from estimator_tl.cli.command import Command, CommandFlags
from estimator_tl.cli.launch_flags import define_evaluation, define_launch, settings_of
from estimator_tl.errors import UserError

if TYPE_CHECKING:
    from estimator_tl.launch.training import Outcome

_MODEL, _DATA, _TRAINING, _OUTPUT = "Model", "Data", "Training", "Output"


def define(command: CommandFlags) -> None:
    """Adds the flags of train."""
    define_model(command)
    command.string(_MODEL, "head", "classifier", 'what stands on the backbone, e.g. "classifier(hidden_units=[128])".')
    command.string(
        _DATA,
        "train_data",
        None,
        "folder with one subfolder of pictures a class, or a table as \"csv('PATH', text='body', label='spam')\".",
    )
    command.string(_DATA, "eval_data", None, "other such data for evaluation (default: a part of --train_data).")
    command.number(
        _DATA,
        "validation_fraction",
        None,
        "share of --train_data for evaluation (default: 0.2; 0 with --eval_data).",
        at_least=0,
        below=1,
    )
    command.number(
        _DATA,
        "test_fraction",
        0.0,
        "share of --train_data that train never sees; evaluate --split=test.",
        at_least=0,
        below=1,
    )
    command.choice(_DATA, "on_bad_example", "error", ["error", "skip"], "what to do with files that are no pictures.")
    command.integer(_TRAINING, "train_steps", None, "global step at which training ends.", at_most=10**15)
    command.number(
        _TRAINING,
        "epochs",
        None,
        "the same in passes over the data (default: 5).",
        above=0,
        at_most=numeric_flags.MOST_TIME,
    )
    command.integer(_TRAINING, "batch_size", 32, "examples a step, over all devices.")
    command.string(_TRAINING, "optimizer", "adam", 'sgd, adam or rmsprop, e.g. "sgd(momentum=0.9)".')
    command.string(
        _TRAINING,
        "learning_rate",
        None,
        'a number or a schedule, e.g. "cosine(1e-3, warmup_steps=100)" (default: the optimizer\'s own, 1e-3).',
    )
    command.integer(
        _TRAINING,
        "seed",
        0,
        "of the order of examples, the head's first weights and dropout.",
        at_least=-numeric_flags.MOST,
    )
    command.boolean(_TRAINING, "deterministic", False, "use deterministic ops only; slower, the same bits each time.")
    command.string(
        _TRAINING,
        "warm_start_from",
        None,
        "model_dir of a run with the same backbone, where this one begins; its head too where classes are the same.",
    )
    command.boolean(
        _TRAINING,
        "allow_plan_change",
        False,
        "go on in --model_dir under another --tuning, --optimizer, --batch_norm or --backbone_dropout.",
    )
    command.string(_OUTPUT, "model_dir", None, "where the run is kept; an existing run of the same model goes on.")
    command.integer(
        _OUTPUT,
        "save_checkpoints_steps",
        None,
        "steps between checkpoints; each is evaluated (default: an epoch).",
        at_most=10**15,
    )
    command.integer(_OUTPUT, "keep_checkpoint_max", 5, "how many checkpoints to keep; 0 keeps all.", at_least=0)
    command.integer(_OUTPUT, "save_summary_steps", 100, "steps between TensorBoard summaries.")
    command.string(_OUTPUT, "export_dir", None, "export the trained model there, for TF Serving.")
    define_evaluation(command)
    define_cluster(command)
    define_launch(command)


def define_model(command: CommandFlags) -> None:
    """Adds the flags that describe a source and how it is tuned; inspect shares them."""
    command.string(
        _MODEL, "backbone", None, 'pretrained source: a path, a URL, or e.g. "keras.MobileNetV2(alpha=0.35)".'
    )
    command.string(
        _MODEL,
        "tuning",
        "frozen",
        "what trains besides the head: frozen, full, last_layers(n), from_layer('name'), last_groups(n), "
        "scopes('regex'); linear_probe_then_full(steps), gradual(every), phases(phase(frozen, until=500), full).",
    )
    command.choice(
        _MODEL,
        "batch_norm",
        "inference",
        ["inference", "train", "recalibrate"],
        "statistics of the backbone: as they are; of the unfrozen part, moving with training; or estimated on the "
        "training data before the first step.",
    )
    command.boolean(
        _MODEL, "backbone_dropout", None, "dropout inside the backbone (default: off when frozen, else on if it can)."
    )
    command.integer(_MODEL, "image_size", None, "pixels, where the backbone does not fix them.", at_most=65535)
    command.many(
        _MODEL, "input_range", None, "values that the backbone takes, e.g. -1,1 (default: what it tells, or else 0,1)."
    )
    command.choice(
        _MODEL,
        "pooling",
        None,
        ["avg", "max", "flatten", "none"],
        "of outputs with height and width, or with tokens (default: avg).",
    )
    command.string(
        _MODEL,
        "backbone_signature",
        None,
        "which signature of a SavedModel or TF1 Hub module to use (default: call it).",
    )
    command.string(_MODEL, "backbone_output_key", None, "which of several outputs of a backbone to use.")
    _define_trust(command)


def _define_trust(command: CommandFlags) -> None:
    command.string(_MODEL, "backbone_sha256", None, "the content that the backbone must have, as inspect prints it.")
    command.boolean(
        _MODEL,
        "allow_unsafe_deserialization",
        False,
        "load backbones that hold Python code (Lambda layers) or read and write files.",
    )


def model_settings(values: Any) -> dict[str, Any]:
    """Returns the settings of a source from parsed flags."""
    return {
        "backbone": values.backbone or "",
        "tuning": values.tuning,
        "batch_norm": values.batch_norm,
        "backbone_dropout": values.backbone_dropout,
        "image_size": values.image_size,
        "input_range": _pair(values.input_range),
        "pooling": values.pooling,
        "backbone_signature": values.backbone_signature,
        "backbone_output_key": values.backbone_output_key,
        "backbone_sha256": values.backbone_sha256,
        "allow_unsafe_deserialization": values.allow_unsafe_deserialization,
    }


def _pair(items: list[str] | None) -> tuple[float, float] | None:
    if not items:
        return None
    try:
        low, high = map(float, items)
    except ValueError as error:
        raise UserError(f"--input_range={','.join(items)} must be two numbers, e.g. -1,1.") from error
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"--input_range={','.join(items)} must be two finite numbers, e.g. -1,1.")
    return low, high


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Trains, evaluates and, where asked, exports."""
    values = command.values
    refuse_arguments("train", arguments)
    if not values.model_dir:
        raise UserError("no --model_dir given; say where to keep the run.")
    from estimator_tl.config import DataSpec, EvaluationSpec, LaunchSpec, ModelSpec, RunSpec, TrainingSpec

    fraction = values.validation_fraction
    if fraction is None:
        fraction = 0.0 if values.eval_data else 0.2
    spec = RunSpec(
        ModelSpec(head=values.head, optimizer=values.optimizer, **model_settings(values)),
        DataSpec(values.train_data or "", values.eval_data, fraction, values.test_fraction, values.on_bad_example),
        TrainingSpec(
            values.train_steps,
            values.epochs,
            values.batch_size,
            values.learning_rate,
            values.seed,
            values.deterministic,
            values.save_checkpoints_steps,
            values.keep_checkpoint_max,
            values.save_summary_steps,
            values.warm_start_from,
            values.allow_plan_change,
        ),
        EvaluationSpec(**settings_of(EvaluationSpec, values)),
        LaunchSpec(**settings_of(LaunchSpec, values)),
    )
    cluster = cluster_of(values, os.environ)
    from estimator_tl.launch.run_dir import check_writable
    from estimator_tl.launch.training import train

    if values.export_dir:
        check_writable(values.export_dir)
    flags_text = command.text(leave_out=("debug", "help", "flagfile", "allow_plan_change"))
    outcome = train(spec, values.model_dir, flags_text, cluster=cluster)
    _tell(outcome)
    if outcome.stop and outcome.stop.resumes:
        return outcome.exit_code
    print(f"{outcome.steps} steps in {outcome.seconds:.1f} s; run kept in {values.model_dir}")
    if values.export_dir and (cluster is None or cluster.is_chief):
        from estimator_tl.cli.export import export

        print(f"exported to {export(values.model_dir, values.export_dir)}")
    sys.stdout.flush()
    return 0


def _tell(outcome: Outcome) -> None:
    from estimator_tl.launch.hooks.progress import metrics_text

    if outcome.metrics:
        print(f"step {outcome.global_step}: {metrics_text(outcome.metrics)}")
    if outcome.stop:
        print(f"stopped at step {outcome.global_step}: {outcome.stop.reason}", file=sys.stderr)
        if outcome.stop.resumes:
            saved = "the checkpoint is saved; " if outcome.global_step else ""
            print(f"{saved}run the same command to go on", file=sys.stderr)


def refuse_arguments(name: str, arguments: list[str]) -> None:
    """Refuses what is not a flag.

    Raises:
      UserError: there is something.
    """
    if arguments:
        raise UserError(f"{name} takes flags only, not {arguments[0]!r}; write --flag=value.")


COMMAND = Command(
    "train and evaluate a model on a pretrained backbone",
    "estimator-tl train --backbone=PATH --train_data=FOLDER --model_dir=FOLDER --tuning=frozen",
    define,
    run,
)
