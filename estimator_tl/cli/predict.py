"""``estimator-tl predict``."""

from __future__ import annotations

import csv
import dataclasses
import functools
import glob
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from estimator_tl.cli.command import Command, CommandFlags
from estimator_tl.errors import UserError

if TYPE_CHECKING:
    from estimator_tl.inputs import Examples
    from estimator_tl.inputs.folders.listing import SortedFiles


def define(command: CommandFlags) -> None:
    """Adds the flags of predict."""
    command.string("Run", "model_dir", None, "The run directory.")
    command.string(
        "Data",
        "input",
        None,
        "Images: files, globs or folders, separated by commas; a file name may contain commas itself. Text: a table as "
        "\"csv('PATH', text='body')\", or a file with one text on each line. Plain arguments work too. Each line of a "
        "file (also an empty one; the last needs no line end) and each row of a table (blank lines are no rows) gets "
        "one answer, in order. The answer to an empty text is null.",
    )
    command.integer("Data", "batch_size", 32, "Examples in a batch.")
    command.choice(
        "Data", "on_bad_example", "error", ["error", "skip"], "What to do with files that cannot be read as images."
    )
    command.choice("Output", "format", "jsonl", ["jsonl", "csv"], "Format of the result on standard output.")
    command.string(
        "Output",
        "top_k",
        "5",
        "How many scores to print, the best first. 'all', or at least the number of classes, prints every score in the "
        "order of the classes. With fewer, --format=csv has the columns class, score, class_2, score_2, ... instead of "
        "a column for each class.",
    )


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Prints a line for each example: file or text, class, its score, and the scores of the best classes."""
    values = command.values
    if not values.model_dir:
        raise UserError("no --model_dir given; name the run to predict with.")
    inputs = [*_items(values.input or ""), *arguments]
    if not inputs:
        raise UserError("no --input given; name files, globs or folders.")
    top_k = _top_k(values.top_k)
    from estimator_tl.inputs import Examples, evaluation_dataset
    from estimator_tl.launch.run import session

    open_run = session.open_run(values.model_dir)
    spec = open_run.backbone.input_spec
    rules, labels = open_run.saved.spec.data.rules, open_run.saved.labels
    if spec.key == "text":
        examples = Examples(tuple(_texts(inputs, rules)))
    else:
        examples = _images(inputs, values.on_bad_example, rules)

    def predict(items: list[str]) -> Iterator[Any]:
        subset = dataclasses.replace(examples, items=tuple(items))
        input_fn = functools.partial(evaluation_dataset, subset, spec, values.batch_size)
        return open_run.predict(input_fn, ["probabilities", "class_ids"])

    answers = _answers(list(examples.items), predict)
    count = min(top_k or len(labels), len(labels))
    _write(list(examples.items), answers, labels, spec.key, values.format == "csv", count)
    return 0


def _top_k(text: str) -> int | None:
    """Returns how many scores to print; None for all.

    Raises:
      UserError: the text is neither ``all`` nor a whole number of at least 1.
    """
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--top_k={text} must be a whole number of at least 1, or all.")
    return int(text)


def _write(items: Sequence[str], predictions: Any, labels: Sequence[str], key: str, as_csv: bool, count: int) -> None:
    """Prints the scores of the `count` best classes of each item."""
    name = "text" if key == "text" else "file"
    every = count == len(labels)
    writer = csv.writer(sys.stdout) if as_csv else None
    if writer:
        ranks = [column for rank in range(2, count + 1) for column in (f"class_{rank}", f"score_{rank}")]
        writer.writerow([name, "class", "score", *(labels if every else ranks)])
    for item, prediction in zip(items, predictions):
        label, score, scores = _answer(prediction, labels, count)
        if not writer:
            line = {name: item, "class": label, "score": score, "scores": scores}
            print(_on_one_line(json.dumps(line, ensure_ascii=False)))
        elif every:
            writer.writerow([item, label, score, *scores.values()])
        elif label is None:
            writer.writerow([item, *[None] * (2 * count)])
        else:
            writer.writerow([item, *(value for pair in scores.items() for value in pair)])


def _answer(
    prediction: Any, labels: Sequence[str], count: int
) -> tuple[str | None, float | None, dict[str, float | None]]:
    """Returns the class, its score, and the scores of the `count` best classes; None for an empty text."""
    every = count == len(labels)
    if prediction is None:
        return None, None, dict.fromkeys(labels) if every else {}
    probabilities, best = prediction["probabilities"], int(prediction["class_ids"][0])
    order = range(len(labels)) if every else _best_first(probabilities, best, count)
    scores: dict[str, float | None] = {labels[number]: round(float(probabilities[number]), 6) for number in order}
    return labels[best], scores[labels[best]], scores


def _on_one_line(line: str) -> str:
    """Escapes the characters in JSON at which readers such as `str.splitlines` would split it."""
    for character in "\x85\u2028\u2029":
        line = line.replace(character, f"\\u{ord(character):04x}")
    return line


def _best_first(probabilities: Any, best: int, count: int) -> list[int]:
    """Returns the numbers of the `count` most probable classes; the predicted class is first, even with ties."""
    order = [int(number) for number in (-probabilities).argsort(kind="stable")[: count + 1] if number != best]
    return [best, *order[: count - 1]]


def _items(text: str) -> list[str]:
    """Splits the value of --input at commas, except inside a spec or the name of a file."""
    if text.startswith("csv(") or os.path.exists(text):
        return [text]
    if not text:
        return []
    parts = next(csv.reader([text]))
    items = []
    while parts:
        size = 1
        if not os.path.exists(parts[0].strip()):
            sizes = range(len(parts), 1, -1)
            size = next((size for size in sizes if os.path.exists(",".join(parts[:size]))), 1)
        items.append(",".join(parts[:size]).strip())
        parts = parts[size:]
    return [item for item in items if item]


def _texts(inputs: list[str], rules: int) -> list[str]:
    """Returns a text for each row; prints how many rows have none.

    Raises:
      UserError: the inputs hold no row, or cannot be read.
    """
    from estimator_tl.inputs.tables.csv_table import read_column, read_texts
    from estimator_tl.registry import Registry

    readers = Registry("input")
    readers.register("csv")(functools.partial(read_column, rules=rules))
    texts: list[str] = []
    for item in inputs:
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
        raise UserError("the input holds no text; give a table, or a file with one text on each line.")
    return texts


def _answers(items: list[str], predict: Callable[[list[str]], Iterator[Any]]) -> Iterator[Any]:
    """Yields a prediction for each item, in order; None for an empty text."""
    full = [item for item in items if item.strip()]
    predictions = predict(full) if full else iter(())
    return (next(predictions) if item.strip() else None for item in items)


def _images(inputs: list[str], on_bad_example: str, rules: int) -> Examples:
    """Returns the images of the inputs.

    Raises:
      UserError: an input names no image, or a file is not a readable image and the policy is ``error``.
    """
    from estimator_tl.inputs import Examples
    from estimator_tl.inputs.folders.image_folder import bad_example_error
    from estimator_tl.inputs.folders.listing import counted, kinds_of
    from estimator_tl.inputs.images.feature import undecodable

    listings = [_files_of(item, rules) for item in inputs]
    bad: dict[str, str] = {}
    for item, listing in zip(inputs, listings):
        if listing.left_out:
            print(f"left out: {counted(listing.left_out)} in {item}", file=sys.stderr)
        if not listing.images and not listing.bad:
            raise UserError(f"--input {item!r} names no image; give an existing file, a glob or a folder.")
        bad.update(listing.bad)
    files = [file for listing in listings for file in listing.images]
    kinds = kinds_of(listings)
    bad.update(dict.fromkeys(undecodable("", files, rules, kinds), ""))
    if bad and on_bad_example == "error":
        raise bad_example_error("", list(bad), next(iter(bad.values())))
    if bad:
        print(f"skipped {len(bad)} unreadable images: {', '.join(list(bad)[:5])}", file=sys.stderr)
    good = [file for file in files if file not in bad]
    if not good:
        raise UserError("none of the input files is a readable image; check --input.")
    return Examples(tuple(good), kinds=kinds)


def _files_of(item: str, rules: int) -> SortedFiles:
    """Returns the files of an item (a file, glob or folder), sorted into images and others."""
    from estimator_tl.inputs.folders import first_rules
    from estimator_tl.inputs.folders.listing import SortedFiles, files_below, sort_out
    from estimator_tl.inputs.images.formats import judge

    if rules == 1:
        return SortedFiles(tuple(first_rules.files_of_item(item)))
    if os.path.isfile(item):
        verdict = judge(item)
        if verdict.kind:
            return SortedFiles((item,), kinds=frozenset({verdict.kind}))
        return SortedFiles((), {item: str(verdict.why_bad)})
    if os.path.isdir(item):
        return sort_out("", [os.path.join(item, name) for name in files_below(item)])
    return sort_out("", sorted(file for file in glob.glob(item, recursive=True) if os.path.isfile(file)))


COMMAND = Command(
    "classify images or text with a run",
    "estimator-tl predict --model_dir=FOLDER --input='photos/*.jpg'",
    define,
    run,
)
