"""Numbers in flags: checked while a command line is read, before anything is imported or written."""

from __future__ import annotations

import math
from typing import Any

from absl import flags

#: What a count may be at most: TensorFlow keeps many of them in 32 bits.
MOST = 2**31 - 1
#: Seconds, hours and epochs above this are no limit at all, and Python's clocks cannot wait for so long.
MOST_TIME = 1e9


class IntegerParser(flags.IntegerParser):
    """Reads a whole number between two bounds."""

    def __init__(self, at_least: int, at_most: int):
        """Args: at_least: the lowest value. at_most: the highest."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._at_least, self._at_most = at_least, at_most

    def parse(self, argument: Any) -> int:
        """Returns the number.

        Raises:
          ValueError: it is none, or out of bounds.
        """
        try:
            value = self.convert(argument)
        except (TypeError, ValueError):
            raise ValueError("must be a whole number.") from None
        if value < self._at_least:
            raise ValueError(f"must be at least {self._at_least}.")
        if value > self._at_most:
            raise ValueError(f"must be at most {self._at_most}.")
        return value


class NumberParser(flags.FloatParser):
    """Reads a finite number between two bounds."""

    def __init__(self, at_least: float | None, above: float | None, at_most: float | None, below: float | None):
        """Args: at_least, above: the lowest value, with or without it. at_most, below: the highest."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._at_least, self._above, self._at_most, self._below = at_least, above, at_most, below

    def parse(self, argument: Any) -> float:
        """Returns the number.

        Raises:
          ValueError: it is none, not finite, or out of bounds.
        """
        try:
            value = self.convert(argument)
        except (TypeError, ValueError):
            raise ValueError("must be a number.") from None
        if not math.isfinite(value):
            raise ValueError("must be a finite number.")
        if self._at_least is not None and value < self._at_least:
            raise ValueError(f"must be at least {self._at_least:g}.")
        if self._above is not None and value <= self._above:
            raise ValueError(f"must be above {self._above:g}.")
        if self._at_most is not None and value > self._at_most:
            raise ValueError(f"must be at most {self._at_most:g}.")
        if self._below is not None and value >= self._below:
            raise ValueError(f"must be below {self._below:g}.")
        return value
