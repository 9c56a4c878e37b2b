"""``estimator-tl evaluate``."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any

from estimator_tl.cli.command import Command, CommandFlags, refuse_arguments
from estimator_tl.errors import UserError, shortened


def define(command: CommandFlags) -> None:
    """Adds the flags of evaluate."""
    command.string("Run", "model_dir", None, "The run directory.")
    command.string("Data", "eval_data", None, "Data to evaluate on, as for train. The default is the data of the run.")
    command.choice(
        "Data",
        "split",
        None,
        ["train", "validation", "test", "all"],
        "Part of the run's own data. The default is its evaluation data; all with --eval_data.",
    )
    command.integer("Data", "batch_size", None, "Examples in a batch. The default is the run's.")
    command.choice(
        "Data",
        "on_bad_example",
        None,
        ["error", "skip"],
        "What to do with files that cannot be read as images. The default is the run's.",
    )


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Evaluates a run; the last line of standard output is one JSON object with the metrics."""
    values = command.values
    refuse_arguments("evaluate", arguments)
    if not values.model_dir:
        raise UserError("no --model_dir given; name the run to evaluate.")
    if values.eval_data and values.split not in (None, "all"):
        raise UserError(f"--split={values.split} is a part of the run's own data; leave it out with --eval_data.")
    from estimator_tl.launch.run import session

    open_run = session.open_run(values.model_dir)
    data, split = _data(values, open_run.saved)
    batch_size = values.batch_size or open_run.saved.spec.training.batch_size
    metrics = open_run.evaluate(data.input_fn(open_run.backbone.input_spec, batch_size, split))
    result = {name: float(value) for name, value in metrics.items()}
    result["global_step"] = int(metrics["global_step"])
    result["examples"] = len(data.examples(split))
    if data.skipped:
        result["skipped"] = len(data.skipped)
    print(json.dumps(result))
    return 0


def _data(values: Any, saved: Any) -> tuple[Any, str]:
    """Returns the data to evaluate on, with the classes of the run, and the part to use.

    Raises:
      UserError: the run has no such part, or the data are missing or invalid.
    """
    from estimator_tl.launch.run import session

    spec, labels = saved.spec.data, saved.labels
    spec = dataclasses.replace(spec, on_bad_example=values.on_bad_example or spec.on_bad_example)
    if values.eval_data:
        return session.other_data(values.eval_data, labels, spec.on_bad_example, spec.rules), "all"
    if spec.eval_data and values.split is None:
        path, split = spec.eval_data, "all"
    else:
        path, split = spec.train_data, values.split or "validation"
        if split in ("validation", "test") and not getattr(spec, f"{split}_fraction"):
            raise UserError(
                f"the run kept no {split} part (--{split}_fraction=0); use --eval_data=FOLDER, or --split=all."
            )
    try:
        data = session.training_data(dataclasses.replace(spec, train_data=path), labels)
    except UserError:
        _check_exists(path)
        raise
    _print_missing_classes(data)
    return data, split


def _check_exists(text: str) -> None:
    """Checks that the data of a run have not been moved or deleted.

    Args:
      text: a path, or a call such as ``csv('PATH')``.

    Raises:
      UserError: the path does not exist.
    """
    from estimator_tl.registry import parse_call

    path = text
    if "(" in text and not os.path.exists(text):
        call = parse_call(text)
        path = next((value for value in (*call.args, *call.kwargs.values()) if isinstance(value, str)), "")
    if path and not os.path.exists(path):
        raise UserError(
            f"the data of the run, {path}, no longer exist; give data with the same classes by --eval_data."
        )


def _print_missing_classes(data: Any) -> None:
    from estimator_tl.launch.run.run_data import missing_classes

    missing = missing_classes(data)
    if missing:
        names = shortened([repr(name) for name in missing])
        print(f"{data.root} no longer has an example of {names}; the metrics cover the other classes", file=sys.stderr)


COMMAND = Command(
    "print the metrics of a run as JSON", "estimator-tl evaluate --model_dir=FOLDER --eval_data=FOLDER", define, run
)
