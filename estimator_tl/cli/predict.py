"""``estimator-tl predict``."""

from __future__ import annotations

import csv
import functools
import glob
import json
import os
import sys
from collections.abc import Iterator

from estimator_tl.cli.command import Command, CommandFlags
from estimator_tl.errors import UserError


def define(command: CommandFlags) -> None:
    """Adds the flags of predict."""
    command.string("Run", "model_dir", None, "the run.")
    command.many("Data", "input", None, "files, globs or folders, separated by commas; also given as plain arguments.")
    command.integer("Data", "batch_size", 32, "examples at a time.")
    command.choice("Data", "on_bad_example", "error", ["error", "skip"], "what to do with files that are no pictures.")
    command.choice("Output", "format", "jsonl", ["jsonl", "csv"], "of the result on standard output.")


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Prints a line a picture: file, class, its score, and the scores of all classes."""
    values = command.values
    if not values.model_dir:
        raise UserError("no --model_dir given; name the run to predict with.")
    wanted = [*(values.input or []), *arguments]
    if not wanted:
        raise UserError("no --input given; name files, globs or folders.")
    files = list(_files(wanted))
    from estimator_tl.inputs import Examples, evaluation_dataset
    from estimator_tl.inputs.image_folder import bad_example_error
    from estimator_tl.inputs.images import is_decodable
    from estimator_tl.launch import session

    bad = [file for file in files if not is_decodable(file, channels=3)]
    if bad and values.on_bad_example == "error":
        raise bad_example_error("", bad)
    if bad:
        print(f"skipped {len(bad)} unreadable pictures: {', '.join(bad[:5])}", file=sys.stderr)
    good = [file for file in files if file not in set(bad)]
    if not good:
        raise UserError("none of the input files is a readable picture; check --input.")
    opened = session.open_run(values.model_dir)
    input_fn = functools.partial(
        evaluation_dataset, Examples(tuple(good)), opened.backbone.image_spec, values.batch_size
    )
    labels = opened.saved.labels
    writer = csv.writer(sys.stdout) if values.format == "csv" else None
    if writer:
        writer.writerow(["file", "class", "score", *labels])
    for file, prediction in zip(good, opened.estimator.predict(input_fn)):
        scores = [round(float(score), 6) for score in prediction["probabilities"]]
        best = int(prediction["class_ids"][0])
        if writer:
            writer.writerow([file, labels[best], scores[best], *scores])
        else:
            line = {"file": file, "class": labels[best], "score": scores[best], "scores": dict(zip(labels, scores))}
            print(json.dumps(line))
    return 0


def _files(wanted: list[str]) -> Iterator[str]:
    from estimator_tl.inputs.images import SUFFIXES

    for item in wanted:
        if os.path.isdir(item):
            found = [
                os.path.join(folder, name)
                for folder, _, names in os.walk(item)
                for name in names
                if name.lower().endswith(SUFFIXES)
            ]
        elif os.path.isfile(item):
            found = [item]
        else:
            found = [file for file in glob.glob(item, recursive=True) if os.path.isfile(file)]
        if not found:
            raise UserError(f"--input {item!r} names no picture; give an existing file, a glob or a folder.")
        yield from sorted(found)


COMMAND = Command(
    "classify pictures with a run", "estimator-tl predict --model_dir=FOLDER --input='photos/*.jpg'", define, run
)
