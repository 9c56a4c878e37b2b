"""Parsers of flags, which check values before anything is imported or written."""

from __future__ import annotations

import math
from typing import Any

from absl import flags

from estimator_tl.config.setting import Bounds


class IntegerParser(flags.IntegerParser):
    """Reads a whole number within bounds."""

    def __init__(self, bounds: Bounds):
        """Args: bounds: of the numbers."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._bounds = bounds

    def parse(self, argument: Any) -> int:
        """Returns the number.

        Raises:
          ValueError: the argument is not a whole number, or is out of bounds.
        """
        try:
            value = self.convert(argument)
        except (TypeError, ValueError):
            raise ValueError("must be a whole number.") from None
        _check(value, self._bounds)
        return value


class NumberParser(flags.FloatParser):
    """Reads a finite number within bounds."""

    def __init__(self, bounds: Bounds):
        """Args: bounds: of the numbers."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._bounds = bounds

    def parse(self, argument: Any) -> float:
        """Returns the number.

        Raises:
          ValueError: the argument is not a number, is NaN or infinite, or is out of bounds.
        """
        try:
            value = self.convert(argument)
        except (TypeError, ValueError):
            raise ValueError("must be a number.") from None
        _check(value, self._bounds)
        return value


class PairParser(flags.ArgumentParser):  # type: ignore[type-arg]
    """Reads two finite numbers with a comma between them."""

    def parse(self, argument: Any) -> tuple[float, float] | None:
        """Returns the two numbers; None for an empty text.

        Raises:
          ValueError: the argument is not two finite numbers.
        """
        if not argument:
            return None
        if isinstance(argument, tuple):
            return argument[0], argument[1]
        try:
            low, high = map(float, argument.split(","))
        except ValueError:
            raise ValueError("must be two numbers, e.g. -1,1.") from None
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("must be two finite numbers, e.g. -1,1.")
        return low, high

    def flag_type(self) -> str:
        """Returns the description of the type."""
        return "two numbers"


class PairSerializer(flags.ArgumentSerializer):  # type: ignore[type-arg]
    """Writes two numbers as `PairParser` reads them."""

    def serialize(self, value: Any) -> str:
        """Returns the numbers with a comma between them."""
        return ",".join(f"{number!r}" for number in value)


def _check(value: float, bounds: Bounds) -> None:
    problem = bounds.problem(value)
    if problem:
        raise ValueError(problem)
