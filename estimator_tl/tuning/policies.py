"""Tuning policies: pure functions from the structure of a backbone to the names of the variables to train."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Iterable

from estimator_tl.errors import UserError, nearest
from estimator_tl.registry import Registry
from estimator_tl.spans import Span
from estimator_tl.structure import SourceStructure

registry = Registry("tuning policy")


class Policy(abc.ABC):
    """Selects the variables of a backbone that are trained."""

    #: An empty selection is an error.
    expects_some = True
    #: Selecting everything is an error.
    partial = True

    @abc.abstractmethod
    def select(self, structure: SourceStructure) -> Iterable[str]:
        """Returns the names of the variables to train; each must be trainable in the structure."""

    def spans(self, structure: SourceStructure) -> tuple[Span, ...]:
        """Returns the spans of the policy in order, from step 0 on; one span for a policy without phases."""
        return (Span(trainable=frozenset(self.select(structure)), policy=str(self)),)

    def hint(self, structure: SourceStructure) -> str:
        """Returns the end of the message for an empty selection."""
        groups = structure.groups()
        return f"groups of variables, input first: {_abridge(groups)}."


def _abridge(names: list[str], most: int = 12) -> str:
    if len(names) <= most:
        return ", ".join(names)
    half = most // 2
    return f"{', '.join(names[:half])}, ..., {', '.join(names[-half:])} ({len(names)} in all)"


@dataclasses.dataclass(frozen=True)
class Frozen(Policy):
    """Trains the head only."""

    expects_some = False

    def select(self, structure: SourceStructure) -> Iterable[str]:
        return ()

    def __str__(self) -> str:
        return "frozen"


@dataclasses.dataclass(frozen=True)
class Full(Policy):
    """Trains every variable of the backbone that can be trained."""

    partial = False

    def select(self, structure: SourceStructure) -> Iterable[str]:
        return [v.name for v in structure.variables if v.trainable]

    def __str__(self) -> str:
        return "full"


@dataclasses.dataclass(frozen=True)
class LastLayers(Policy):
    """Trains the last `n` layers of the backbone's layer list, as ``base.layers[-n:]``."""

    n: int

    def select(self, structure: SourceStructure) -> Iterable[str]:
        layers = _layers(structure, str(self))
        return _of_layers(structure, layers[max(len(layers) - self.n, 0) :])

    def hint(self, structure: SourceStructure) -> str:
        return f"its last layers have no weights; layers: {_abridge(list(structure.layers or ()))}."

    def __str__(self) -> str:
        return f"last_layers({self.n})"


@dataclasses.dataclass(frozen=True)
class FromLayer(Policy):
    """Trains from one layer on, that layer included."""

    layer: str | int

    def select(self, structure: SourceStructure) -> Iterable[str]:
        layers = _layers(structure, str(self))
        if isinstance(self.layer, int):
            if not -len(layers) <= self.layer < len(layers):
                raise UserError(
                    f"{self}: {structure.handle} has {len(layers)} layers; use an index from 0 to {len(layers) - 1}."
                )
            start = self.layer % len(layers)
        elif self.layer in layers:
            start = layers.index(self.layer)
        else:
            raise UserError(f"{self}: {structure.handle} has no such layer; {nearest(self.layer, layers, limit=200)}")
        return _of_layers(structure, layers[start:])

    def __str__(self) -> str:
        return f"from_layer({self.layer!r})"


@dataclasses.dataclass(frozen=True)
class LastGroups(Policy):
    """Trains the last `n` groups of variables; a group shares its name up to the last slash."""

    n: int

    def select(self, structure: SourceStructure) -> Iterable[str]:
        groups = structure.groups()
        last_names = set(groups[max(len(groups) - self.n, 0) :])
        return [v.name for v in structure.variables if v.trainable and v.group in last_names]

    def __str__(self) -> str:
        return f"last_groups({self.n})"


@dataclasses.dataclass(frozen=True)
class Scopes(Policy):
    """Trains the variables whose names match one of the regular expressions (`re.search`)."""

    patterns: tuple[str, ...]

    def select(self, structure: SourceStructure) -> Iterable[str]:
        trainable = [v.name for v in structure.variables if v.trainable]
        selected: set[str] = set()
        for pattern in self.patterns:
            matches = [name for name in trainable if re.search(pattern, name)]
            if not matches:
                raise UserError(
                    f"scopes: {pattern!r} matches no trainable variable of {structure.handle}; "
                    f"{nearest(pattern, structure.groups())}"
                )
            selected.update(matches)
        return [name for name in trainable if name in selected]

    def __str__(self) -> str:
        return f"scopes({', '.join(repr(p) for p in self.patterns)})"


def _layers(structure: SourceStructure, policy: str) -> list[str]:
    if structure.layers is None:
        raise UserError(
            f"{policy} needs a backbone with layers, but {structure.handle} has only variables; use last_groups(n) or "
            f"scopes('REGEX'). Its groups, input first: {_abridge(structure.groups())}."
        )
    return list(structure.layers)


def _of_layers(structure: SourceStructure, layers: Iterable[str]) -> list[str]:
    names = set(layers)
    return [v.name for v in structure.variables if v.trainable and v.layer in names]


def _positive(name: str, n: int) -> int:
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise UserError(f"{name}({n!r}) needs a whole number of at least 1; use frozen to train nothing.")
    return n


@registry.register()
def frozen() -> Policy:
    """Trains the head only.

    Example:
      >>> plan = etl.tuning.make_plan(backbone.structure, etl.tuning.frozen())
      >>> len(plan.trainable)
      0
    """
    return Frozen()


@registry.register()
def full() -> Policy:
    """Trains every variable of the backbone that can be trained.

    Example:
      >>> plan = etl.tuning.make_plan(backbone.structure, etl.tuning.full())
      >>> [name for name in plan.frozen if "moving" not in name]
      []
    """
    return Full()


@registry.register()
def last_layers(n: int) -> Policy:
    """Trains the last `n` layers of the backbone's layer list, as ``base.layers[-n:]``.

    Example:
      >>> network = etl.backbone("keras.MobileNet(alpha=0.25, weights=None, image_size=32)")
      >>> plan = etl.tuning.make_plan(network.structure, etl.tuning.last_layers(3))
      >>> sorted(plan.trainable)
      ['conv_pw_13/kernel', 'conv_pw_13_bn/beta', 'conv_pw_13_bn/gamma']
    """
    return LastLayers(_positive("last_layers", n))


@registry.register()
def from_layer(name_or_index: str | int) -> Policy:
    """Trains from the named (or indexed) layer on, that layer included.

    Example:
      >>> network = etl.backbone("keras.MobileNet(alpha=0.25, weights=None, image_size=32)")
      >>> plan = etl.tuning.make_plan(network.structure, etl.tuning.from_layer("conv_pw_13_bn"))
      >>> sorted(plan.trainable)
      ['conv_pw_13_bn/beta', 'conv_pw_13_bn/gamma']
    """
    if isinstance(name_or_index, bool) or not isinstance(name_or_index, (str, int)):
        raise UserError(f"from_layer({name_or_index!r}) needs a layer's name in quotes, or its index.")
    return FromLayer(name_or_index)


@registry.register()
def last_groups(n: int) -> Policy:
    """Trains the last `n` groups of variables; a group shares its name up to the last slash.

    Example:
      >>> plan = etl.tuning.make_plan(backbone.structure, etl.tuning.last_groups(2))
      >>> sorted(plan.trainable)
      ['top/conv2/kernel', 'top/conv2_bn/beta', 'top/conv2_bn/gamma']
    """
    return LastGroups(_positive("last_groups", n))


@registry.register()
def scopes(*regex: str) -> Policy:
    """Trains the variables whose names match one of the regular expressions (`re.search`).

    Example:
      >>> plan = etl.tuning.make_plan(backbone.structure, etl.tuning.scopes("^top/", "beta$"))
      >>> sorted(plan.trainable)
      ['stem/conv1_bn/beta', 'top/conv2/kernel', 'top/conv2_bn/beta', 'top/conv2_bn/gamma']
    """
    if not regex:
        raise UserError("scopes() needs at least one regular expression, e.g. scopes('block_1[56]').")
    for pattern in regex:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise UserError(f"scopes({pattern!r}) is not a regular expression: {error}; correct it.") from error
    return Scopes(tuple(regex))
