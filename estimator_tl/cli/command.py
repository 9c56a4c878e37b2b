"""A command of the program, and its flags in groups."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from absl import flags

from estimator_tl.cli import flagfiles, parsers
from estimator_tl.config.setting import MOST, Bounds, Setting, settings_of
from estimator_tl.errors import UserError

#: The page that lists all flags.
REFERENCE = "docs/FLAGS.md"
_Spec = TypeVar("_Spec")


class CommandFlags:
    """The flags of one command: absl flags, in groups for the help.

    Attributes:
      values: the absl FlagValues; ``values.NAME`` is the value of a flag after parsing.
      groups: the names of the flags of each group.
      common: the names of the flags that ``--help`` shows; ``--helpfull`` shows all.
    """

    def __init__(self) -> None:
        self.values = flags.FlagValues()  # type: ignore[no-untyped-call]
        self.groups: dict[str, list[str]] = {}
        self.common: set[str] = set()
        self._replaces: dict[str, tuple[str, ...]] = {}

    def define(self, spec: type, without: Collection[str] = ()) -> None:
        """Adds a flag for each setting of a spec.

        Args:
          spec: a class of `estimator_tl.config`.
          without: the names of settings to leave out.
        """
        for setting in settings_of(spec):
            if setting.name not in without:
                self._define_setting(setting)

    def spec(self, kind: type[_Spec]) -> _Spec:
        """Returns a spec with the values of the flags; settings without a flag keep their defaults.

        Args:
          kind: a class of `estimator_tl.config`.

        Raises:
          UserError: a value is invalid, or values contradict each other.
        """
        names = [setting.name for setting in settings_of(kind) if setting.name in self.values]
        return kind(**{name: self.values[name].value for name in names})

    def string(self, group: str, name: str, default: str | None, text: str) -> None:
        """Adds a string flag."""
        flags.DEFINE_string(name, default, text, flag_values=self.values)
        self._file(group, name)

    def integer(
        self, group: str, name: str, default: int | None, text: str, at_least: int = 1, at_most: int = MOST
    ) -> None:
        """Adds an integer flag with its bounds."""
        self._add(group, name, default, text, parsers.IntegerParser(Bounds(at_least=at_least, at_most=at_most)))

    def number(
        self,
        group: str,
        name: str,
        default: float | None,
        text: str,
        above: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Adds a float flag with its bounds; no flag takes NaN or infinity."""
        self._add(group, name, default, text, parsers.NumberParser(Bounds(above=above, at_most=at_most)))

    def boolean(self, group: str, name: str, default: bool | None, text: str) -> None:
        """Adds a flag that ``--name`` turns on and ``--noname`` off."""
        flags.DEFINE_boolean(name, default, text, flag_values=self.values)
        self._file(group, name)

    def choice(self, group: str, name: str, default: str | None, values: Sequence[str], text: str) -> None:
        """Adds a flag with a fixed list of values."""
        flags.DEFINE_enum(name, default, list(values), text, flag_values=self.values)
        self._file(group, name)

    def many(self, group: str, name: str, default: Sequence[str] | None, text: str) -> None:
        """Adds a flag with a list separated by commas."""
        flags.DEFINE_list(name, None if default is None else list(default), text, flag_values=self.values)
        self._file(group, name)

    def exclude(self, names: Sequence[str], others: Sequence[str]) -> None:
        """Makes two groups of flags replace each other: the flag that is given later wins."""
        self._replaces.update({name: (*self._replaces.get(name, ()), *others) for name in names})
        self._replaces.update({other: (*self._replaces.get(other, ()), *names) for other in others})

    def parse(self, name: str, arguments: Sequence[str]) -> list[str]:
        """Reads a command line and its flagfiles; flags of the command line win over flags of a flagfile.

        A flag also wins over the flags that it replaces, if they are in an earlier file.

        Args:
          name: the name of the command.
          arguments: the command line after the name.

        Returns:
          The arguments that are not flags.

        Raises:
          UserError: a flagfile cannot be read, a flag is unknown or has a wrong value, or two flags contradict.
        """
        files, others = flagfiles.split(arguments, self._takes_next)
        lines = [line for file in files for line in flagfiles.lines_of(file)]
        undefok = [text for text in (*(line.text for line in lines), *others) if re.match("--?undefok=", text)]
        source: dict[str, str] = {}
        for line in lines:
            if self._read([name, *undefok, line.text], source, line.file, f"{line.position}: "):
                raise UserError(f"{line.position}: {line.text!r} is not a flag; write --name=value.")
        return self._read([name, *undefok, *others], source, "")

    def given(self) -> dict[str, Any]:
        """Returns the flags that the user set, by name."""
        return {name: self.values[name].value for name in self._names() if self.values[name].present}

    def text(self, leave_out: Collection[str] = ()) -> str:
        """Returns the flags that the user set as a flagfile, each on one line, even if its value has line breaks."""
        lines = [
            re.sub(r"\s*\n\s*", " ", self.values[name].serialize())
            for name in self._names()
            if self.values[name].present and name not in leave_out and self.values[name].value is not None
        ]
        return "".join(f"{line}\n" for line in lines if line)

    def help(self, full: bool) -> str:
        """Returns the help text of the flags, by group.

        Args:
          full: whether to show all flags, not only the common ones.
        """
        lines = []
        for group, names in self.groups.items():
            visible = [name for name in names if full or not self.common or name in self.common]
            if visible:
                lines += [f"\n{group}:", *map(self._help_line, visible)]
        hint = "--helpfull lists all flags; " * bool(self.common and not full)
        return "\n".join([*lines, f"\n{hint}{REFERENCE} is the reference."])

    def _help_line(self, name: str) -> str:
        flag = self.values[name]
        switch = "[no]" * bool(flag.boolean)
        default = self.default_text(name)
        suffix = f" (default: {default})" if default else ""
        return f"  --{switch}{name}: {' '.join(str(flag.help).split())}{suffix}"

    def default_text(self, name: str) -> str:
        """Returns the default of a flag as text; empty for no default, for off and for an empty default."""
        flag = self.values[name]
        is_number = isinstance(flag.default, (int, float)) and not isinstance(flag.default, bool)
        if not flag.default and not is_number:
            return ""
        return str(flag.default_as_str).strip("'")

    def _names(self) -> list[str]:
        return [name for names in self.groups.values() for name in names]

    def _read(self, arguments: Sequence[str], source: dict[str, str], file: str, where: str = "") -> list[str]:
        """Reads one command line; returns the arguments that are not flags.

        Args:
          arguments: the name of the command, then flags.
          source: the file of each flag that is set so far; the flags of this call are added.
          file: the file of these flags; empty for the command line.
          where: the beginning of an error message.

        Raises:
          UserError: a flag is unknown or invalid, or two flags contradict each other.
        """
        before = {name: self.values[name].present for name in self._names()}
        try:
            parsed: list[str] = self.values(arguments)
        except flags.Error as error:
            # Some messages of absl begin "flag --name=value: must be"; the others already begin with the flag.
            message = re.sub(r"^flag (--\w+=.*?): must be ", r"\1 must be ", str(error), flags=re.DOTALL)
            raise UserError(f"{where}{message}") from error
        new = [name for name in self._names() if self.values[name].present > before[name]]
        source.update(dict.fromkeys(new, file))
        for name in new:
            self._replace_earlier(name, source)
        return parsed[1:]

    def _replace_earlier(self, name: str, source: dict[str, str]) -> None:
        """Unsets the flags that a flag replaces.

        Raises:
          UserError: both flags are in the same file or on the command line.
        """
        for other in self._replaces.get(name, ()):
            if source.get(other) == source[name]:
                first, second = sorted((name, other), key=self._names().index)
                raise UserError(f"both {first} and {second} are given; give one of them.")
            if source.pop(other, None) is not None:
                self.values[other].unparse()

    def _takes_next(self, argument: str) -> bool:
        """Returns whether the argument after this one is its value."""
        name = argument.lstrip("-")
        return argument.startswith("-") and name in self.values and not self.values[name].boolean

    def _define_setting(self, setting: Setting) -> None:
        group, name, default, text = setting.group, setting.name, setting.default, setting.help
        if setting.kind == "integer":
            self._add(group, name, default, text, parsers.IntegerParser(setting.bounds))
        elif setting.kind == "number":
            self._add(group, name, default, text, parsers.NumberParser(setting.bounds))
        elif setting.kind == "pair":
            self._add(group, name, default, text, parsers.PairParser(), parsers.PairSerializer())
        elif setting.kind == "switch":
            self.boolean(group, name, default, text)
        elif setting.kind == "list":
            self.many(group, name, default, text)
        elif setting.kind == "choice":
            self.choice(group, name, default, setting.choices, text)
        else:
            self.string(group, name, default, text)
        if setting.common:
            self.common.add(name)
        self._replaces[name] = (*self._replaces.get(name, ()), *setting.instead_of)

    def _add(self, group: str, name: str, default: Any, text: str, parser: Any, serializer: Any = None) -> None:
        writer = serializer or flags.ArgumentSerializer()
        flags.DEFINE(  # type: ignore[no-untyped-call]
            parser, name, default, text, flag_values=self.values, serializer=writer
        )
        self._file(group, name)

    def _file(self, group: str, name: str) -> None:
        self.groups.setdefault(group, []).append(name)


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of the program.

    Attributes:
      summary: one line for the list of commands.
      usage: an example of a call.
      define: adds the flags of the command.
      run: runs the command with the flags and the remaining arguments; returns the exit code.
      own_flags: False if all arguments belong to another program; `run` then gets them unparsed.
    """

    summary: str
    usage: str
    define: Callable[[CommandFlags], None]
    run: Callable[[CommandFlags, list[str]], int]
    own_flags: bool = True


def define_common(command: CommandFlags) -> None:
    """Adds the flags that every command has."""
    group = "General"
    command.choice(
        group, "verbosity", "warning", ["debug", "info", "warning", "error"], "How much TensorFlow may print."
    )
    command.boolean(group, "debug", False, "Show the traceback of an error.")
    command.many(
        group, "import_modules", [], "Your modules, imported first; they may register heads, optimizers and others."
    )
    flags.DEFINE_multi_string("flagfile", [], "Read flags from this file.", flag_values=command.values)
    flags.DEFINE_string("undefok", "", "Names of flags that may be unknown.", flag_values=command.values)
    flags.DEFINE_boolean("help", False, "Show this help.", short_name="h", flag_values=command.values)
    flags.DEFINE_boolean("helpfull", False, "Show the help of all flags.", flag_values=command.values)
    command.groups.setdefault(group, []).extend(["flagfile", "help", "helpfull"])
    if command.common:
        command.common |= {"flagfile", "help", "helpfull"}


def refuse_arguments(name: str, arguments: list[str]) -> None:
    """Refuses arguments that are not flags.

    Raises:
      UserError: there is an argument.
    """
    if arguments:
        raise UserError(f"{name} takes flags only, not {arguments[0]!r}; write --flag=value.")
