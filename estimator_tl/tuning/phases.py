"""Phased policies: which policy holds at which global step, as a pure function of the step.

Sources: linear probing then fine-tuning is Kumar et al. 2022 (LP-FT); unfreezing
group by group from the top is Howard and Ruder 2018 (ULMFiT).
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterable, Sequence

from estimator_tl.errors import UserError
from estimator_tl.spans import Span
from estimator_tl.structure import SourceStructure
from estimator_tl.tuning.policies import Frozen, Full, LastGroups, LastLayers, Policy, Scopes, registry, scopes


@dataclasses.dataclass(frozen=True)
class Phase:
    """A policy and the steps for which it holds.

    Attributes:
      policy: what is trained.
      until: the global step at which the next phase begins; None for the last phase.
      learning_rate: a number or a schedule's spec that begins with the phase, in place of the run's.
      multiplier: factor on the learning rate.
      restart: whether the run's own schedule begins anew with the phase (and ends with it, where it needs an end).
    """

    policy: Policy
    until: int | None = None
    learning_rate: float | str | None = None
    multiplier: float = 1.0
    restart: bool = False

    def __str__(self) -> str:
        defaults = vars(Phase(self.policy))
        changes = [f"{name}={value!r}" for name, value in vars(self).items() if value != defaults[name]]
        return f"phase({', '.join([str(self.policy), *changes])})"


class Phased(Policy):
    """A policy that changes with the global step; `select` gives the union of its phases."""

    expects_some = True
    partial = False

    def __init__(self, name: str):
        self._name = name

    @abc.abstractmethod
    def phases(self, structure: SourceStructure) -> Sequence[Phase]:
        """Returns the phases for a source, in order; the last has no end."""

    def select(self, structure: SourceStructure) -> Iterable[str]:
        return frozenset(name for span in self.spans(structure) for name in span.trainable)

    def spans(self, structure: SourceStructure) -> tuple[Span, ...]:
        """Returns the phases on the axis of global steps, with what each trains.

        Raises:
          UserError: a phase selects nothing where it should, or everything where it should be partial.
        """
        spans: list[Span] = []
        start = 0
        everything = set(Full().select(structure))
        for phase in self.phases(structure):
            trainable = frozenset(phase.policy.select(structure))
            if phase.policy.expects_some and not trainable:
                raise UserError(f"{self}: {phase} selects nothing to train; {phase.policy.hint(structure)}")
            if phase.policy.partial and trainable == everything:
                raise UserError(f"{self}: {phase} selects every trainable variable; write full there, or select less.")
            rate = (phase.learning_rate, phase.multiplier, phase.restart)
            spans.append(Span(start, phase.until, trainable, str(phase.policy), str(phase), *rate))
            start = phase.until or start
        return tuple(spans)

    def __str__(self) -> str:
        return self._name


class Listed(Phased):
    """Phases as the user listed them."""

    def __init__(self, name: str, listed: Sequence[Phase]):
        super().__init__(name)
        self._listed = tuple(listed)

    def phases(self, structure: SourceStructure) -> Sequence[Phase]:
        return self._listed


class _Pieces(Scopes):
    """The expressions unfrozen so far, which may come to match everything."""

    partial = False


class Gradual(Phased):
    """One more piece of the source every `every` steps, from the top down."""

    def __init__(self, name: str, every: int, by: str | tuple[str, ...], size: int, head_steps: int, decay: float):
        super().__init__(name)
        self._every, self._by, self._size, self._head_steps, self._decay = every, by, size, head_steps, decay

    def phases(self, structure: SourceStructure) -> Sequence[Phase]:
        pieces = self._pieces(structure)
        found = [Phase(Frozen(), self._head_steps)] if self._head_steps else []
        step = self._head_steps
        for index, policy in enumerate(pieces):
            step += self._every
            last = index == len(pieces) - 1
            found.append(Phase(policy, None if last else step, multiplier=self._decay**index))
        return found

    def _pieces(self, structure: SourceStructure) -> list[Policy]:
        """Returns the policies of growing size, the last with everything that there is to unfreeze."""
        if isinstance(self._by, tuple):
            self._check_groups(structure, self._by)
            return [_Pieces(self._by[:count]) for count in range(1, len(self._by) + 1)]
        if self._by == "layer":
            if structure.layers is None:
                raise UserError(
                    f"{self} unfreezes by layer, but {structure.handle} has only variables; use by='group'."
                )
            with_weights = {v.layer for v in structure.variables if v.trainable}
            depths = [len(structure.layers) - i for i, name in enumerate(structure.layers) if name in with_weights]
            sizes = sorted(depths)[self._size - 1 :: self._size]
            growing: list[Policy] = [LastLayers(n) for n in sizes]
        else:
            count = len(structure.groups())
            growing = [LastGroups(n) for n in range(self._size, count + 1, self._size)]
        everything = set(Full().select(structure))
        return [*(p for p in growing if set(p.select(structure)) != everything), Full()]

    def _check_groups(self, structure: SourceStructure, patterns: tuple[str, ...]) -> None:
        taken: dict[str, str] = {}
        for pattern in patterns:
            for name in Scopes((pattern,)).select(structure):
                if name in taken:
                    raise UserError(
                        f"{self}: groups overlap: {name} is in {taken[name]!r} and in {pattern!r}; "
                        "write expressions that exclude each other."
                    )
                taken[name] = pattern


def _steps(where: str, name: str, value: object, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{where}: {name}={value!r} must be a whole number of steps, at least {least}.")
    return value


@registry.register()
def phase(
    policy: Policy,
    until: int | None = None,
    learning_rate: float | str | None = None,
    multiplier: float = 1.0,
    restart: bool = False,
) -> Phase:
    """One phase of `phases`: a policy, the global step at which it ends, and its learning rate.

    Example:
      >>> print(etl.tuning.phase(etl.tuning.last_groups(2), until=500, multiplier=0.1))
      phase(last_groups(2), until=500, multiplier=0.1)
    """
    if isinstance(policy, (Phased, Phase)) or not isinstance(policy, Policy):
        raise UserError(f"phase({policy}) needs a policy without phases, e.g. phase(last_layers(10), until=500).")
    if until is not None:
        _steps("phase", "until", until)
    if not isinstance(multiplier, (int, float)) or isinstance(multiplier, bool) or not 0 < multiplier < math.inf:
        raise UserError(f"phase: multiplier={multiplier!r} must be a number above 0.")
    if restart and learning_rate is not None:
        raise UserError("phase: a learning_rate of its own begins with the phase anyway; leave restart out.")
    return Phase(policy, until, learning_rate, float(multiplier), bool(restart))


@registry.register()
def phases(*listed: Phase | Policy) -> Phased:
    """Phases in order: ``phases(phase(frozen, until=500), phase(last_layers(10), until=1500), full)``.

    Example:
      >>> frozen, full = etl.tuning.frozen(), etl.tuning.full()
      >>> policy = etl.tuning.phases(etl.tuning.phase(frozen, until=500), full)
      >>> plan = etl.tuning.make_plan(backbone.structure, policy)
      >>> [(span.start, span.end, len(span.trainable)) for span in plan.spans]
      [(0, 500, 0), (500, None, 6)]
    """
    found = [item if isinstance(item, Phase) else phase(item) for item in listed]
    name = f"phases({', '.join(map(str, found))})"
    if len(found) < 2:
        raise UserError(f"{name} needs at least two phases; with one, write its policy alone.")
    end = 0
    for item in found[:-1]:
        if item.until is None:
            raise UserError(f"{name}: {item} needs until=, the global step at which the next phase begins.")
        if item.until <= end:
            raise UserError(f"{name}: phases are out of order: {item} ends at or before step {end}, where it begins.")
        end = item.until
    if found[-1].until is not None:
        raise UserError(f"{name}: the last phase holds until the training ends; leave until={found[-1].until} out.")
    return Listed(name, found)


@registry.register()
def linear_probe_then_full(steps: int, learning_rate: float | str | None = None, multiplier: float = 1.0) -> Phased:
    """Trains the head alone for some steps, then everything (LP-FT); the rate given is that of the second phase.

    Source: Kumar et al. 2022, https://arxiv.org/abs/2202.10054.

    Example:
      >>> plan = etl.tuning.make_plan(backbone.structure, etl.tuning.linear_probe_then_full(300))
      >>> [span.start for span in plan.spans]
      [0, 300]
    """
    _steps("linear_probe_then_full", "steps", steps)
    second = phase(Full(), None, learning_rate, multiplier)
    arguments = [str(steps), *str(second)[len("phase(full") : -1].split(", ")[1:]]
    return Listed(f"linear_probe_then_full({', '.join(arguments)})", [Phase(Frozen(), steps), second])


@registry.register()
def gradual(
    every: int,
    by: str | Sequence[str] = "layer",
    size: int = 1,
    head_steps: int | None = None,
    decay: float = 1.0,
) -> Phased:
    """Unfreezes the source piece by piece from the top, one piece every `every` steps, as ULMFiT.

    Args:
      every: steps between two unfreezings.
      by: ``layer``, ``group`` (variables that share their name up to the last slash), or a list of regular
        expressions, one a piece, the first to be unfrozen first.
      size: how many layers or groups with weights make a piece.
      head_steps: steps with the head alone first; `every` by default, 0 for none.
      decay: factor on the learning rate at each unfreezing.

    Example:
      >>> policy = etl.tuning.gradual(100, by="group", size=2)
      >>> plan = etl.tuning.make_plan(backbone.structure, policy)
      >>> [(span.start, len(span.trainable)) for span in plan.spans]
      [(0, 0), (100, 3), (200, 6)]
    """
    _steps("gradual", "every", every)
    _steps("gradual", "size", size)
    if isinstance(by, str):
        if by not in ("layer", "group"):
            raise UserError(f"gradual: by={by!r} must be 'layer', 'group' or a list of regular expressions.")
        pieces: str | tuple[str, ...] = by
    else:
        scopes(*by)  # refuses what is no regular expression
        if size != 1:
            raise UserError("gradual: size counts layers or groups; with a list of expressions leave it out.")
        pieces = tuple(by)
    head = every if head_steps is None else _steps("gradual", "head_steps", head_steps, least=0)
    if not isinstance(decay, (int, float)) or not 0 < decay <= 1:
        raise UserError(f"gradual: decay={decay!r} must be above 0 and at most 1.")
    shown = list(pieces) if isinstance(pieces, tuple) else pieces
    name = f"gradual({every}, by={shown!r}, size={size}, head_steps={head}, decay={decay:g})"
    return Gradual(name, every, pieces, size, head, float(decay))
