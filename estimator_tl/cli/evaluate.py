"""``estimator-tl evaluate``."""

from __future__ import annotations

import json

from estimator_tl.cli.command import Command, CommandFlags
from estimator_tl.cli.train import refuse_arguments
from estimator_tl.errors import UserError


def define(command: CommandFlags) -> None:
    """Adds the flags of evaluate."""
    command.string("Run", "model_dir", None, "the run.")
    command.string("Data", "eval_data", None, "a folder of pictures (default: the data that the run was given).")
    command.choice(
        "Data",
        "split",
        None,
        ["train", "validation", "test", "all"],
        "part of the run's own data (default: its evaluation data); all with --eval_data.",
    )
    command.integer("Data", "batch_size", None, "examples at a time (default: the run's).")
    command.choice("Data", "on_bad_example", "error", ["error", "skip"], "what to do with files that are no pictures.")


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Evaluates; the last line of standard output is one JSON object of metrics."""
    values = command.values
    refuse_arguments("evaluate", arguments)
    if not values.model_dir:
        raise UserError("no --model_dir given; name the run to evaluate.")
    if values.eval_data and values.split not in (None, "all"):
        raise UserError(f"--split={values.split} is a part of the run's own data; leave it out with --eval_data.")
    from estimator_tl.launch import session

    opened = session.open_run(values.model_dir)
    spec, labels = opened.saved.spec, opened.saved.labels
    other = values.eval_data or (spec.data.eval_data if values.split is None else None)
    if other:
        folder, split = session.other_data(other, labels, values.on_bad_example, spec.data.rules), "all"
    else:
        split = values.split or "validation"
        if split != "all" and split != "train" and not getattr(spec.data, f"{split}_fraction"):
            raise UserError(
                f"the run kept no {split} part (--{split}_fraction=0); use --eval_data=FOLDER, or --split=all."
            )
        folder = session.training_data(spec.data, labels)
    input_fn = folder.input_fn(opened.backbone.input_spec, values.batch_size or spec.training.batch_size, split)
    metrics = opened.evaluate(input_fn)
    result = {name: float(value) for name, value in metrics.items()}
    result["global_step"] = int(metrics["global_step"])
    result["examples"] = len(folder.examples(split))
    if folder.skipped:
        result["skipped"] = len(folder.skipped)
    print(json.dumps(result))
    return 0


COMMAND = Command(
    "print the metrics of a run as JSON", "estimator-tl evaluate --model_dir=FOLDER [--eval_data=FOLDER]", define, run
)
