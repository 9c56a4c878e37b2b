"""``estimator-tl predict``."""

from __future__ import annotations

import csv
import functools
import glob
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from estimator_tl.cli.command import Command, CommandFlags
from estimator_tl.errors import UserError

if TYPE_CHECKING:
    from estimator_tl.inputs import Examples
    from estimator_tl.inputs.listing import SortedFiles


def define(command: CommandFlags) -> None:
    """Adds the flags of predict."""
    command.string("Run", "model_dir", None, "the run.")
    command.string(
        "Data",
        "input",
        None,
        "images: files, globs or folders, separated by commas (a file whose name has a comma may be named as it is); "
        "text: a table as \"csv('PATH', text='body')\", or a file with a text a line; also given as plain arguments.",
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
    from estimator_tl.launch import session

    opened = session.open_run(values.model_dir)
    spec = opened.backbone.input_spec
    if spec.key == "text":
        examples = Examples(tuple(_texts(wanted)))
    else:
        examples = _images(wanted, values.on_bad_example, opened.saved.spec.data.rules)
    input_fn = functools.partial(evaluation_dataset, examples, spec, values.batch_size)
    predictions = opened.estimator.predict(input_fn, predict_keys=["probabilities", "class_ids"])
    labels = opened.saved.labels
    _write(
        examples.items, predictions, labels, spec.key, values.format == "csv", min(top_k or len(labels), len(labels))
    )
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
        probabilities, best = prediction["probabilities"], int(prediction["class_ids"][0])
        order = range(len(labels)) if every else _best_first(probabilities, best, count)
        scores = {labels[number]: round(float(probabilities[number]), 6) for number in order}
        score = scores[labels[best]]
        if not writer:
            line = {name: item, "class": labels[best], "score": score, "scores": scores}
            print(json.dumps(line, ensure_ascii=False))
        elif every:
            writer.writerow([item, labels[best], score, *scores.values()])
        else:
            writer.writerow([item, *(value for pair in scores.items() for value in pair)])


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


def _texts(wanted: list[str]) -> list[str]:
    from estimator_tl.inputs.csv_table import read_texts
    from estimator_tl.registry import Registry

    readers = Registry("input")
    readers.register("csv")(read_texts)
    found: list[str] = []
    for item in wanted:
        found += readers.make(item) if item.startswith("csv(") else read_texts(item)
    if not found:
        raise UserError("the input holds no text; give a table, or a file with a text a line.")
    return found


def _images(wanted: list[str], on_bad_example: str, rules: int) -> Examples:
    """Returns the images that the items name.

    Raises:
      UserError: an item names none, or a file that should be an image is none and the policy is ``error``.
    """
    from estimator_tl.inputs import Examples
    from estimator_tl.inputs.image_folder import bad_example_error
    from estimator_tl.inputs.images import undecodable
    from estimator_tl.inputs.listing import counted, kinds_of

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
    from estimator_tl.inputs import first_rules
    from estimator_tl.inputs.formats import judge
    from estimator_tl.inputs.listing import SortedFiles, files_below, sort_out

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
