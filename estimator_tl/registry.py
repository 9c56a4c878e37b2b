"""The spec grammar: Python calls with literal arguments, and registries of the names they may use.

``last_layers(20)``, ``sgd(momentum=0.9)``, ``keras.MobileNet(alpha=0.25)``: parsed
with `ast`, never evaluated. A bare name is a call without arguments.
"""

from __future__ import annotations

import ast
import dataclasses
import glob
import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from estimator_tl.errors import UserError, nearest

#: Arguments of backbones that are names and never paths, even if a file of the same name exists.
_NO_PATHS = frozenset({"exclude", "features", "output_key", "pooling", "scope", "signature"})
_Maker = TypeVar("_Maker", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, repr=False)
class Call:
    """A parsed spec: a dotted name with literal (or nested) arguments. Its repr is the spec."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        values = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        if not values:
            return self.name
        return f"{self.name}({', '.join(values)})"


def absolute_paths(text: str) -> str:
    """Returns a path or a spec with absolute paths in place of all paths that exist.

    A run directory must mean the same from any working directory.
    """
    if os.path.exists(os.path.expanduser(text)):
        return os.path.abspath(os.path.expanduser(text))
    if "(" not in text:
        return text
    call = parse_call(text)
    kwargs = {key: value if key in _NO_PATHS else _absolute_path(value) for key, value in call.kwargs.items()}
    return str(Call(call.name, tuple(map(_absolute_path, call.args)), kwargs))


def _absolute_path(value: Any) -> Any:
    """Returns a value as an absolute path if it names a file, a checkpoint or a function in a file."""
    if not isinstance(value, str) or not value or "://" in value:
        return value
    file, colon, function = value.rpartition(":")
    if colon and file.endswith(".py"):
        return f"{_absolute_path(file)}:{function}"
    path = os.path.expanduser(value)
    # The name of a checkpoint is the common prefix of its files.
    is_checkpoint = any(glob.glob(glob.escape(path) + ending) for ending in (".index", "-?????-of-?????"))
    if os.path.exists(path) or is_checkpoint:
        return os.path.abspath(path)
    return value


def parse_call(text: str) -> Call:
    """Parses a spec such as ``cosine(1e-3, warmup_steps=100)``.

    Raises:
      UserError: the text is not a name or a call with literal arguments.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise UserError(
            f"cannot read the spec {text!r}: {error.msg}; write a call with literal arguments, e.g. last_layers(20)."
        ) from error
    value = _value(node, text)
    if not isinstance(value, Call):
        raise UserError(f"the spec {text!r} is not a name or a call; write e.g. last_layers(20).")
    return value


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call):
        keywords = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise UserError(
                    f"the spec {text!r} uses **, which a spec does not allow; write each argument as NAME=VALUE."
                )
            keywords[keyword.arg] = _value(keyword.value, text)
        return Call(_dotted(node.func, text), tuple(_value(arg, text) for arg in node.args), keywords)
    if isinstance(node, (ast.Name, ast.Attribute)):
        return Call(_dotted(node, text))
    if isinstance(node, (ast.Tuple, ast.List)):
        items = [_value(item, text) for item in node.elts]
        if isinstance(node, ast.Tuple):
            return tuple(items)
        return items
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise UserError(
            f"the spec {text!r} holds {ast.unparse(node)!r}, which is not a literal; "
            "use numbers, quoted strings, lists, True, False or None."
        ) from error


def _dotted(node: ast.expr, text: str) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, text)}.{node.attr}"
    raise UserError(f"the spec {text!r} does not begin with a name; write e.g. last_layers(20).")


def load(location: str) -> Callable[..., Any]:
    """Imports the function or class that ``package.module:NAME`` names."""
    module, _, name = location.partition(":")
    maker: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return maker


def check_arguments(
    description: str, maker: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Checks that the arguments of a call fit the signature of the function or class.

    Args:
      description: the kind and name of the function or class, for the error, e.g. ``optimizer adam``.
      maker: the function or class.
      args: positional arguments.
      kwargs: arguments by name.

    Raises:
      UserError: an unknown argument, or a wrong number of them.
    """
    signature = inspect.signature(maker)
    accepts_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    for key in kwargs:
        if not accepts_any and key not in signature.parameters:
            raise UserError(f"{description} has no argument {key!r}; {nearest(key, signature.parameters)}")
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        # The message shows the signature without types, to keep the line short.
        parameters = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
        raise UserError(f"{description}{inspect.Signature(parameters)}: {error}; correct the arguments.") from error


class Registry:
    """Names of one kind (tuning policy, head, optimizer, ...), each with the function or class that makes it.

    A program adds its own with ``@registry.register("name")``; the flag
    ``--import_modules`` imports such a program's module before specs are read.
    """

    def __init__(self, kind: str, locations: Mapping[str, str] | None = None):
        """Creates a registry.

        Args:
          kind: the kind of thing that a name stands for, e.g. ``optimizer``.
          locations: ``package.module:NAME`` of the function or class, by name; imported at its first use.
        """
        self.kind = kind
        self._makers: dict[str, Callable[..., Any] | str] = dict(locations or {})

    def register(self, name: str | None = None) -> Callable[[_Maker], _Maker]:
        """Returns a decorator that registers a function or class under `name` (by default its own name)."""

        def decorate(maker: _Maker) -> _Maker:
            self._makers[name or maker.__name__] = maker
            return maker

        return decorate

    def names(self) -> list[str]:
        """Returns the registered names, sorted."""
        return sorted(self._makers)

    def __contains__(self, name: str) -> bool:
        return name in self._makers

    def takes(self, name: str, argument: str) -> bool:
        """Returns whether the function or class of a name has this argument; False for an unknown name."""
        return name in self and argument in inspect.signature(self._maker(name)).parameters

    def make(self, spec: str | Call) -> Any:
        """Makes the object that a spec describes.

        Raises:
          UserError: an unknown name, an unknown argument, or a wrong number of arguments.
        """
        call = parse_call(spec) if isinstance(spec, str) else spec
        if call.name not in self:
            raise UserError(f"unknown {self.kind} {call.name!r}; {nearest(call.name, self.names())}")
        maker = self._maker(call.name)
        args = [self._nested(arg) for arg in call.args]
        kwargs = {key: self._nested(value) for key, value in call.kwargs.items()}
        check_arguments(f"{self.kind} {call.name}", maker, args, kwargs)
        return maker(*args, **kwargs)

    def _maker(self, name: str) -> Callable[..., Any]:
        maker = self._makers[name]
        if isinstance(maker, str):
            return load(maker)
        return maker

    def _nested(self, value: Any) -> Any:
        if isinstance(value, Call):
            return self.make(value)
        if isinstance(value, (tuple, list)):
            return type(value)(self._nested(item) for item in value)
        return value
