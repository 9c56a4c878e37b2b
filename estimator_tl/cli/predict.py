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
    command.string("Run", "model_dir", None, "the run.")
    command.string(
        "Data",
        "input",
        None,
        "images: files, globs or folders, separated by commas (a file whose name has a comma may be named as it is); "
        "text: a table as \"csv('PATH', text='body')\", or a file with a text a line; also given as plain arguments. "
        "Each row has one answer, in order: each line of a file, also an empty one (the last needs no line end); each "
        "row of a table but blank lines. Where there is no text the answer is null.",
    )
    command.integer("Data", "batch_size", 32, "examples at a time.")
    command.choice("Data", "on_bad_example", "error", ["error", "skip"], "what to do with files that are no pictures.")
    command.choice("Output", "format", "jsonl", ["jsonl", "csv"], "of the result on standard output.")
    command.string(
        "Output",
        "top_k",
        "5",
        "how many classes to print scores of, the best first; 'all', or a number of at least all classes, prints every "
        "score in the order of the classes. With fewer, --format=csv has the columns class, score, class_2, score_2, "
        "... in place of a column for each class.",
    )


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Prints a line an example: file or text, class, its score, and the scores of the best classes."""
    values = command.values
    if not values.model_dir:
        raise UserError("no --model_dir given; name the run to predict with.")
    wanted = [*_items(values.input or ""), *arguments]
    if not wanted:
        raise UserError("no --input given; name files, globs or folders.")
    top_k = _top_k(values.top_k)
    from estimator_tl.inputs import Examples, evaluation_dataset
    from estimator_tl.launch.run import session

    opened = session.open_run(values.model_dir)
    spec = opened.backbone.input_spec
    rules, labels = opened.saved.spec.data.rules, opened.saved.labels
    if spec.key == "text":
        examples = Examples(tuple(_texts(wanted, rules)))
    else:
        examples = _images(wanted, values.on_bad_example, rules)

    def predict(items: list[str]) -> Iterator[Any]:
        chosen = dataclasses.replace(examples, items=tuple(items))
        input_fn = functools.partial(evaluation_dataset, chosen, spec, values.batch_size)
        return opened.predict(input_fn, ["probabilities", "class_ids"])

    answers = _answers(list(examples.items), predict)
    count = min(top_k or len(labels), len(labels))
    _write(list(examples.items), answers, labels, spec.key, values.format == "csv", count)
    return 0


def _top_k(text: str) -> int | None:
    """Returns how many scores to print; None for all.

    Raises:
      UserError: it is neither ``all`` nor a whole number of at least 1.
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
    """Returns the class, its score, and the scores of the `count` best classes; nulls for a text that is empty."""
    every = count == len(labels)
    if prediction is None:
        return None, None, dict.fromkeys(labels) if every else {}
    probabilities, best = prediction["probabilities"], int(prediction["class_ids"][0])
    order = range(len(labels)) if every else _best_first(probabilities, best, count)
    scores: dict[str, float | None] = {labels[number]: round(float(probabilities[number]), 6) for number in order}
    return labels[best], scores[labels[best]], scores


def _on_one_line(line: str) -> str:
    """Escapes in JSON the characters at which readers such as `str.splitlines` would part it."""
    for character in "\x85\u2028\u2029":
        line = line.replace(character, f"\\u{ord(character):04x}")
    return line


def _best_first(probabilities: Any, best: int, count: int) -> list[int]:
    """Returns the numbers of the `count` most probable classes; the predicted one leads where others are equal."""
    order = [int(number) for number in (-probabilities).argsort(kind="stable")[: count + 1] if number != best]
    return [best, *order[: count - 1]]


def _items(text: str) -> list[str]:
    """Parts the value of --input at its commas, but for those inside of a spec or of the name of a file."""
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


def _texts(wanted: list[str], rules: int) -> list[str]:
    """Returns a text for each row; says which rows have none."""
    from estimator_tl.inputs.tables.csv_table import read_column, read_texts
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


def _images(wanted: list[str], on_bad_example: str, rules: int) -> Examples:
    """Returns the images that the items name.

    Raises:
      UserError: an item names none, or a file that should be an image is none and the policy is ``error``.
    """
    from estimator_tl.inputs import Examples
    from estimator_tl.inputs.folders.image_folder import bad_example_error
    from estimator_tl.inputs.folders.listing import counted, kinds_of
    from estimator_tl.inputs.images.feature import undecodable

    listed = [_listed(item, rules) for item in wanted]
    bad: dict[str, str] = {}
    for item, of_item in zip(wanted, listed):
        if of_item.left_out:
            print(f"left out: {counted(of_item.left_out)} in {item}", file=sys.stderr)
        if not of_item.images and not of_item.bad:
            raise UserError(f"--input {item!r} names no picture; give an existing file, a glob or a folder.")
        bad.update(of_item.bad)
    files = [file for of_item in listed for file in of_item.images]
    kinds = kinds_of(listed)
    bad.update(dict.fromkeys(undecodable("", files, rules, kinds), ""))
    if bad and on_bad_example == "error":
        raise bad_example_error("", list(bad), next(iter(bad.values())))
    if bad:
        print(f"skipped {len(bad)} unreadable pictures: {', '.join(list(bad)[:5])}", file=sys.stderr)
    good = [file for file in files if file not in bad]
    if not good:
        raise UserError("none of the input files is a readable picture; check --input.")
    return Examples(tuple(good), kinds=kinds)


def _listed(item: str, rules: int) -> SortedFiles:
    """Returns the files that an item names, sorted."""
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
    "classify pictures or text with a run",
    "estimator-tl predict --model_dir=FOLDER --input='photos/*.jpg'",
    define,
    run,
)
