"""Names of classes in a table, and their numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from estimator_tl.errors import UserError, nearest
from estimator_tl.inputs.tables.rows import same_name

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def known_classes(labels: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes that the caller knows, in the form in which names are compared.

    Raises:
      UserError: `labels` is not a list of different names.
    """
    names: tuple[str, ...] = ()
    if not isinstance(labels, str):
        names = tuple(same_name(str(label)) for label in labels)
    if len(set(names)) < len(names) or not names:
        raise UserError(f"labels={labels!r} must be a list of different names.")
    return names


def check_alike(path: str, names: Sequence[str]) -> None:
    """Checks that each class name is spelled in one way only, and is one line.

    Raises:
      UserError: two names are the same number or truth value, e.g. 1 and 1.0; or a name has a line end.
    """
    first: dict[float | str, str] = {}
    for name in dict.fromkeys(names):
        if "\n" in name or "\r" in name:
            raise UserError(f"{path} holds the class {name!r}, which has a line end; a class is one line.")
        value = _value(name)
        if value is None:
            continue
        other = first.setdefault(value, name)
        if other != name:
            raise UserError(
                f"{path} holds the classes {other!r} and {name!r}, which are the same value; write them alike."
            )


def class_numbers(path: str, names: Sequence[str], known: tuple[str, ...] | None) -> tuple[tuple[str, ...], list[int]]:
    """Returns the classes in order, and the number of the class of each name.

    Args:
      path: the file, for the error.
      names: the label of each row.
      known: the classes in order, where they are known; None for the sorted names.

    Raises:
      UserError: a name is not a class, there are no names, or there are fewer than two classes.
    """
    classes = tuple(sorted(set(names))) if known is None else known
    if len(classes) < 2:
        raise UserError(f"{path} holds {len(classes)} classes ({', '.join(classes)}); a classifier needs at least two.")
    if not names:
        raise UserError(f"{path} holds no rows below its header; it needs a text and a label in each row.")
    numbers = {name: number for number, name in enumerate(classes)}
    for name in sorted(set(names)):
        if name not in numbers:
            raise UserError(
                f"{path} holds the class {name!r}, which the run does not know; {_nearest_class(name, classes)}"
            )
    return classes, [numbers[name] for name in names]


def _nearest_class(name: str, classes: Sequence[str]) -> str:
    value = _value(name)
    same_value = [item for item in classes if value is not None and _value(item) == value]
    if same_value:
        return f"write it {same_value[0]!r}, as the run does."
    return nearest(name, classes)


def _value(name: str) -> float | str | None:
    """Returns a name as a number, or as a truth value in lower case; None for any other name."""
    if _NUMBER.fullmatch(name):
        return float(name)
    if name.lower() in ("true", "false"):
        return name.lower()
    return None
