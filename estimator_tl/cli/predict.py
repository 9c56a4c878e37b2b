"""``estimator-tl predict``."""

from __future__ import annotations

import csv
import functools
import glob
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from estimator_tl.cli.command import Command, CommandFlags
from estimator_tl.errors import UserError


def define(command: CommandFlags) -> None:
    """Adds the flags of predict."""
    command.string("Run", "model_dir", None, "the run.")
    command.many(
        "Data",
        "input",
        None,
        "pictures: files, globs or folders, separated by commas; text: a table as \"csv('PATH', text='body')\", or "
        "a file with a text a line; also given as plain arguments. Each row has one answer, in order: each line of a "
        "file, also an empty one (the last needs no line end); each row of a table but blank lines. Where there is no "
        "text the answer is null.",
    )
    command.integer("Data", "batch_size", 32, "examples at a time.")
    command.choice("Data", "on_bad_example", "error", ["error", "skip"], "what to do with files that are no pictures.")
    command.choice("Output", "format", "jsonl", ["jsonl", "csv"], "of the result on standard output.")


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Prints a line an example: file or text, class, its score, and the scores of all classes."""
    values = command.values
    if not values.model_dir:
        raise UserError("no --model_dir given; name the run to predict with.")
    wanted = [*_specs(values.input or []), *arguments]
    if not wanted:
        raise UserError("no --input given; name files, globs or folders.")
    from estimator_tl.inputs import Examples, evaluation_dataset
    from estimator_tl.launch import session

    opened = session.open_run(values.model_dir)
    spec = opened.backbone.input_spec
    rules = opened.saved.spec.data.rules
    items = _texts(wanted, rules) if spec.key == "text" else _pictures(wanted, values.on_bad_example)

    def predict(items: list[str]) -> Iterator[Any]:
        input_fn = functools.partial(evaluation_dataset, Examples(tuple(items)), spec, values.batch_size)
        return iter(opened.estimator.predict(input_fn))

    _write(items, _answers(items, predict), opened.saved.labels, spec.key, values.format == "csv")
    return 0


def _write(items: list[str], predictions: Any, labels: Sequence[str], key: str, as_csv: bool) -> None:
    name = "text" if key == "text" else "file"
    writer = csv.writer(sys.stdout) if as_csv else None
    if writer:
        writer.writerow([name, "class", "score", *labels])
    for item, prediction in zip(items, predictions):
        label = score = None
        scores: list[float | None] = [None] * len(labels)
        if prediction is not None:
            scores = [round(float(one), 6) for one in prediction["probabilities"]]
            best = int(prediction["class_ids"][0])
            label, score = labels[best], scores[best]
        if writer:
            writer.writerow([item, label, score, *scores])
        else:
            line = {name: item, "class": label, "score": score, "scores": dict(zip(labels, scores))}
            print(_on_one_line(json.dumps(line, ensure_ascii=False)))


def _on_one_line(line: str) -> str:
    """Escapes in JSON the characters at which readers such as `str.splitlines` would part it."""
    for character in "\x85\u2028\u2029":
        line = line.replace(character, f"\\u{ord(character):04x}")
    return line


def _specs(items: list[str]) -> list[str]:
    """Puts specs together again that their commas have parted."""
    text = ",".join(items)
    return [text] if text.startswith("csv(") else items


def _texts(wanted: list[str], rules: int) -> list[str]:
    """Returns a text for each row; says which rows have none."""
    from estimator_tl.inputs.csv_table import read_column, read_texts
    from estimator_tl.registry import Registry

    readers = Registry("input")
    readers.register("csv")(functools.partial(read_column, rules=rules))
    texts: list[str] = []
    for item in wanted:
        rows = readers.make(item) if item.startswith("csv(") else read_texts(item, rules=rules)
        empty = [number for number, text in enumerate(rows, 1) if not text.strip()]
        if empty:
            print(
                f"{item}: {len(empty)} of {len(rows)} rows have no text, or other columns than the first; their "
                f"answers are null (first: row {empty[0]})",
                file=sys.stderr,
            )
        texts += rows
    if not texts:
        raise UserError("the input holds no text; give a table, or a file with a text a line.")
    return texts


def _answers(items: list[str], predict: Callable[[list[str]], Iterator[Any]]) -> Iterator[Any]:
    """Yields a prediction for each item, in order; None for a text that is empty."""
    full = [item for item in items if item.strip()]
    predictions = predict(full) if full else iter(())
    return (next(predictions) if item.strip() else None for item in items)


def _pictures(wanted: list[str], on_bad_example: str) -> list[str]:
    from estimator_tl.inputs.image_folder import bad_example_error
    from estimator_tl.inputs.images import is_decodable

    files = list(_files(wanted))
    bad = [file for file in files if not is_decodable(file, channels=3)]
    if bad and on_bad_example == "error":
        raise bad_example_error("", bad)
    if bad:
        print(f"skipped {len(bad)} unreadable pictures: {', '.join(bad[:5])}", file=sys.stderr)
    good = [file for file in files if file not in set(bad)]
    if not good:
        raise UserError("none of the input files is a readable picture; check --input.")
    return good


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
    "classify pictures or text with a run",
    "estimator-tl predict --model_dir=FOLDER --input='photos/*.jpg'",
    define,
    run,
)
