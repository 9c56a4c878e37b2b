"""What a command is, and its flags in groups."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from estimator_tl.cli import flagfiles, numeric_flags
from estimator_tl.errors import UserError


class CommandFlags:
    """The flags of one command: absl flags of their own, remembered by group for the help.

    Attributes:
      values: the absl FlagValues; ``values.name`` after parsing.
    """

    def __init__(self) -> None:
        self.values = flags.FlagValues()  # type: ignore[no-untyped-call]
        self.groups: dict[str, list[str]] = {}

    def string(self, group: str, name: str, default: str | None, text: str) -> None:
        """Adds a string flag."""
        flags.DEFINE_string(name, default, text, flag_values=self.values)
        self._file(group, name)

    def integer(
        self,
        group: str,
        name: str,
        default: int | None,
        text: str,
        at_least: int = 1,
        at_most: int = numeric_flags.MOST,
    ) -> None:
        """Adds an integer flag with its bounds."""
        self._define(group, name, default, text, numeric_flags.IntegerParser(at_least, at_most))

    def number(
        self,
        group: str,
        name: str,
        default: float | None,
        text: str,
        at_least: float | None = None,
        above: float | None = None,
        at_most: float | None = None,
        below: float | None = None,
    ) -> None:
        """Adds a float flag with its bounds; no flag takes NaN or infinity."""
        self._define(group, name, default, text, numeric_flags.NumberParser(at_least, above, at_most, below))

    def boolean(self, group: str, name: str, default: bool | None, text: str) -> None:
        """Adds a flag that ``--name`` turns on and ``--noname`` off."""
        flags.DEFINE_boolean(name, default, text, flag_values=self.values)
        self._file(group, name)

    def choice(self, group: str, name: str, default: str | None, values: list[str], text: str) -> None:
        """Adds a flag with a fixed list of values."""
        flags.DEFINE_enum(name, default, values, text, flag_values=self.values)
        self._file(group, name)

    def many(self, group: str, name: str, default: list[str] | None, text: str) -> None:
        """Adds a flag with a list separated by commas."""
        flags.DEFINE_list(name, default, text, flag_values=self.values)
        self._file(group, name)

    def parse(self, name: str, arguments: Sequence[str]) -> list[str]:
        """Reads the flags of a command line; they win over those of its flagfiles, wherever these stand.

        Args:
          name: of the command.
          arguments: the command line behind it.

        Returns:
          The arguments that are no flags.

        Raises:
          UserError: a flagfile cannot be read, or a flag is unknown or has a wrong value.
        """
        files, own = flagfiles.parted(arguments, self._takes_next)
        lines = [line for file in files for line in flagfiles.lines_of(file)]
        tolerant = [text for text in (*(line.text for line in lines), *own) if re.match("--?undefok=", text)]
        for line in lines:
            if self._read([name, *tolerant, line.text], f"{line.place}: "):
                raise UserError(f"{line.place}: {line.text!r} is no flag; write --name=value.")
        return self._read([name, *tolerant, *own])

    def given(self) -> dict[str, Any]:
        """Returns the flags that the user set, by name."""
        return {name: self.values[name].value for name in self._names() if self.values[name].present}

    def text(self, leave_out: tuple[str, ...] = ()) -> str:
        """Returns the flags that the user set as a flagfile, each on one line whatever the shell's quotes held."""
        lines = [
            re.sub(r"\s*\n\s*", " ", self.values[name].serialize())
            for name in self._names()
            if self.values[name].present and name not in leave_out and self.values[name].value is not None
        ]
        return "".join(f"{line}\n" for line in lines if line)

    def help(self) -> str:
        """Returns the help text of all flags, by group."""
        lines = []
        for group, names in self.groups.items():
            lines.append(f"\n{group}:")
            for name in names:
                flag = self.values[name]
                shown = f"--[no]{name}" if flag.boolean else f"--{name}"
                default = "" if flag.default is None else f" (default: {str(flag.default_as_str).strip(chr(39))})"
                lines.append(f"  {shown}: {flag.help}{default}")
        return "\n".join(lines)

    def _names(self) -> list[str]:
        return [name for names in self.groups.values() for name in names]

    def _read(self, arguments: Sequence[str], where: str = "") -> list[str]:
        """Returns what is no flag in one command line."""
        try:
            parsed: list[str] = self.values(arguments)
        except flags.Error as error:
            # Of the two forms that absl has, one names the flag as a subject already.
            said = re.sub(r"^flag (--\w+=.*?): must be ", r"\1 must be ", str(error), flags=re.DOTALL)
            raise UserError(f"{where}{said}") from error
        return parsed[1:]

    def _takes_next(self, argument: str) -> bool:
        """Returns whether the argument after this one is its value."""
        name = argument.lstrip("-")
        return argument.startswith("-") and name in self.values and not self.values[name].boolean

    def _define(self, group: str, name: str, default: Any, text: str, parser: Any) -> None:
        flags.DEFINE(  # type: ignore[no-untyped-call]
            parser, name, default, text, flag_values=self.values, serializer=flags.ArgumentSerializer()
        )
        self._file(group, name)

    def _file(self, group: str, name: str) -> None:
        self.groups.setdefault(group, []).append(name)


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of the program.

    Attributes:
      summary: one line for the list of commands.
      usage: example of a call.
      define: adds its flags.
      run: does it; gets the flags and the remaining arguments, returns the exit code.
      own_flags: False for a command whose arguments all belong to somebody else: `run` gets them unparsed.
    """

    summary: str
    usage: str
    define: Callable[[CommandFlags], None]
    run: Callable[[CommandFlags, list[str]], int]
    own_flags: bool = True


def define_common(command: CommandFlags) -> None:
    """Adds the flags that every command has."""
    group = "General"
    command.choice(group, "verbosity", "warning", ["debug", "info", "warning", "error"], "what TensorFlow may print.")
    command.boolean(group, "debug", False, "show the traceback of an error.")
    command.many(
        group, "import_modules", [], "your own modules, imported first; they may register heads, optimizers and others."
    )
    flags.DEFINE_multi_string("flagfile", [], "read flags from this file.", flag_values=command.values)
    flags.DEFINE_string("undefok", "", "flag names that may be unknown.", flag_values=command.values)
    flags.DEFINE_boolean("help", False, "show this help.", short_name="h", flag_values=command.values)
    command.groups.setdefault(group, []).extend(["flagfile", "help"])
