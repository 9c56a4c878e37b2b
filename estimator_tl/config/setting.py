"""Settings: each is defined once, as a field of a spec with its default, help text, group, choices and bounds.

The flags of the command line, the checks of the specs and docs/FLAGS.md are derived from these fields.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from estimator_tl.errors import UserError, check_known

#: The highest count: TensorFlow keeps many counts in 32 bits.
MOST = 2**31 - 1
#: The highest global step that a setting may name.
MOST_STEPS = 10**15
#: The longest time, in any unit: Python's clocks cannot wait longer.
MOST_TIME = 1e9
_KEY = "setting"
_KINDS = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "switch",
    "tuple[str, ...]": "list",
    "tuple[float, float]": "pair",
}


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The range of the numbers that a setting takes; None for no bound.

    Attributes:
      at_least: the lowest value.
      above: all values are above this one.
      at_most: the highest value.
      below: all values are below this one.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def problem(self, value: float) -> str | None:
        """Returns what is wrong with a number, e.g. ``must be at least 1.``; None if it is in bounds."""
        if not math.isfinite(value):
            return "must be a finite number."
        if self.at_least is not None and value < self.at_least:
            return f"must be at least {_text(self.at_least)}."
        if self.above is not None and value <= self.above:
            return f"must be above {_text(self.above)}."
        if self.at_most is not None and value > self.at_most:
            return f"must be at most {_text(self.at_most)}."
        if self.below is not None and value >= self.below:
            return f"must be below {_text(self.below)}."
        return None


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting of a spec.

    Attributes:
      name: the name of the field and of the flag.
      kind: text, integer, number, switch, choice, list or pair.
      default: the default value.
      help: the help text, one sentence or a few.
      group: the heading in ``--help`` and docs/FLAGS.md.
      choices: the values of a choice.
      bounds: the bounds of an integer or a number.
      common: whether ``--help`` shows the flag; ``--helpfull`` shows all.
      instead_of: the settings that this one replaces; if both are given, the later one wins.
    """

    name: str
    kind: str
    default: Any
    help: str
    group: str
    choices: tuple[str, ...] = ()
    bounds: Bounds = Bounds()
    common: bool = False
    instead_of: tuple[str, ...] = ()


def setting(
    default: Any,
    text: str,
    group: str,
    *,
    choices: Sequence[str] = (),
    common: bool = False,
    instead_of: Sequence[str] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """Returns a dataclass field that is a setting.

    Args:
      default: the default value.
      text: the help text.
      group: see `Setting`.
      choices: the values, if the setting is a choice.
      common: see `Setting`.
      instead_of: see `Setting`.
      at_least: see `Bounds`; whole numbers are at least 1 by default.
      above: see `Bounds`.
      at_most: see `Bounds`.
      below: see `Bounds`.
    """
    bounds = Bounds(at_least, above, at_most, below)
    values = {"help": text, "group": group, "choices": tuple(choices), "bounds": bounds, "common": common}
    return dataclasses.field(default=default, metadata={_KEY: {**values, "instead_of": tuple(instead_of)}})


def settings_of(spec: type) -> list[Setting]:
    """Returns the settings of a spec in the order of its fields, without fields that are not settings."""
    return [_setting_of(field) for field in dataclasses.fields(spec) if _KEY in field.metadata]


def _setting_of(field: dataclasses.Field[Any]) -> Setting:
    values = dict(field.metadata[_KEY])
    kind = "choice" if values["choices"] else _KINDS[str(field.type).removesuffix(" | None")]
    bounds = values["bounds"]
    if kind == "integer":
        at_least = 1 if bounds.at_least is None else bounds.at_least
        at_most = MOST if bounds.at_most is None else bounds.at_most
        values["bounds"] = Bounds(at_least=at_least, at_most=at_most)
    return Setting(field.name, kind, field.default, **values)


def check_settings(spec: Any) -> None:
    """Checks the values of a spec against the bounds and choices of its settings.

    Raises:
      UserError: a value is out of bounds, or not one of the choices.
    """
    for item in settings_of(type(spec)):
        value = getattr(spec, item.name)
        if value is None:
            continue
        if item.kind == "choice":
            check_known(item.name, value, item.choices)
        elif item.kind in ("integer", "number"):
            problem = item.bounds.problem(value)
            if problem:
                raise UserError(f"{item.name} {_text(value)} {problem}")


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
