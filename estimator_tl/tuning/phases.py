"""Phased policies: the tuning policy as a pure function of the global step.

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
      policy: the policy of the phase.
      until: the global step at which the next phase begins; None for the last phase.
      learning_rate: a number, or the spec of a schedule that begins with the phase; None for the run's learning rate.
      multiplier: factor on the learning rate.
      restart: whether the run's schedule starts again with the phase (and ends with it, if it needs an end).
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
        """Returns the phases for a backbone, in order; the last phase has no end."""

    def select(self, structure: SourceStructure) -> Iterable[str]:
        return frozenset(name for span in self.spans(structure) for name in span.trainable)

    def spans(self, structure: SourceStructure) -> tuple[Span, ...]:
        """Returns for each phase its global steps and the variables that it trains.

        Raises:
          UserError: a phase selects nothing, or a partial policy selects everything.
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


class FixedPhases(Phased):
    """Phases that are the same for every backbone."""

    def __init__(self, name: str, phases: Sequence[Phase]):
        super().__init__(name)
        self._phases = tuple(phases)

    def phases(self, structure: SourceStructure) -> Sequence[Phase]:
        return self._phases


class _Pieces(Scopes):
    """The regular expressions that are unfrozen so far. Together they may match every variable."""

    partial = False


class Gradual(Phased):
    """Unfreezes one more piece of the backbone every `every` steps, from the top down."""

    def __init__(self, name: str, every: int, by: str | tuple[str, ...], size: int, head_steps: int, decay: float):
        super().__init__(name)
        self._every, self._by, self._size, self._head_steps, self._decay = every, by, size, head_steps, decay

    def phases(self, structure: SourceStructure) -> Sequence[Phase]:
        pieces = self._pieces(structure)
        phase_list = []
        if self._head_steps:
            phase_list.append(Phase(Frozen(), self._head_steps))
        step = self._head_steps
        for index, policy in enumerate(pieces):
            step += self._every
            is_last = index == len(pieces) - 1
            phase_list.append(Phase(policy, None if is_last else step, multiplier=self._decay**index))
        return phase_list

    def _pieces(self, structure: SourceStructure) -> list[Policy]:
        """Returns policies that each select more than the one before; the last selects all that is to be unfrozen."""
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
            policies: list[Policy] = [LastLayers(n) for n in sizes]
        else:
            count = len(structure.groups())
            policies = [LastGroups(n) for n in range(self._size, count + 1, self._size)]
        everything = set(Full().select(structure))
        return [*(p for p in policies if set(p.select(structure)) != everything), Full()]

    def _check_groups(self, structure: SourceStructure, patterns: tuple[str, ...]) -> None:
        pattern_of: dict[str, str] = {}
        for pattern in patterns:
            for name in Scopes((pattern,)).select(structure):
                if name in pattern_of:
                    raise UserError(
                        f"{self}: groups overlap: {name} is in {pattern_of[name]!r} and in {pattern!r}; "
                        "write expressions that exclude each other."
                    )
                pattern_of[name] = pattern


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
        raise UserError("phase: the schedule in learning_rate starts with the phase anyway; leave restart out.")
    return Phase(policy, until, learning_rate, float(multiplier), bool(restart))


@registry.register()
def phases(*items: Phase | Policy) -> Phased:
    """Phases in order: ``phases(phase(frozen, until=500), phase(last_layers(10), until=1500), full)``.

    Example:
      >>> frozen, full = etl.tuning.frozen(), etl.tuning.full()
      >>> policy = etl.tuning.phases(etl.tuning.phase(frozen, until=500), full)
      >>> plan = etl.tuning.make_plan(backbone.structure, policy)
      >>> [(span.start, span.end, len(span.trainable)) for span in plan.spans]
      [(0, 500, 0), (500, None, 6)]
    """
    phase_list = [item if isinstance(item, Phase) else phase(item) for item in items]
    name = f"phases({', '.join(map(str, phase_list))})"
    if len(phase_list) < 2:
        raise UserError(f"{name} needs at least two phases; for a single phase write its policy alone.")
    end = 0
    for item in phase_list[:-1]:
        if item.until is None:
            raise UserError(f"{name}: {item} needs until=, the global step at which the next phase begins.")
        if item.until <= end:
            raise UserError(f"{name}: phases are out of order: {item} ends at or before step {end}, where it begins.")
        end = item.until
    last = phase_list[-1]
    if last.until is not None:
        raise UserError(f"{name}: the last phase lasts until training ends; leave until={last.until} out.")
    return FixedPhases(name, phase_list)


@registry.register()
def linear_probe_then_full(steps: int, learning_rate: float | str | None = None, multiplier: float = 1.0) -> Phased:
    """Trains the head alone for some steps, then everything (LP-FT). The rate and multiplier are for the second phase.

    Source: Kumar et al. 2022, https://arxiv.org/abs/2202.10054.

    Example:
      >>> plan = etl.tuning.make_plan(backbone.structure, etl.tuning.linear_probe_then_full(300))
      >>> [span.start for span in plan.spans]
      [0, 300]
    """
    _steps("linear_probe_then_full", "steps", steps)
    second = phase(Full(), None, learning_rate, multiplier)
    arguments = [str(steps), *str(second)[len("phase(full") : -1].split(", ")[1:]]
    return FixedPhases(f"linear_probe_then_full({', '.join(arguments)})", [Phase(Frozen(), steps), second])


@registry.register()
def gradual(
    every: int,
    by: str | Sequence[str] = "layer",
    size: int = 1,
    head_steps: int | None = None,
    decay: float = 1.0,
) -> Phased:
    """Unfreezes the backbone piece by piece from the top, one piece every `every` steps, as in ULMFiT.

    Args:
      every: the number of steps between two unfreezings.
      by: ``layer``, ``group`` (variables that share their name up to the last slash), or a list of regular
        expressions, one for each piece; the first is unfrozen first.
      size: how many layers or groups with weights make a piece.
      head_steps: how many steps train the head alone at the start; by default `every`, 0 for none.
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
        scopes(*by)  # raises an error for an invalid regular expression
        if size != 1:
            raise UserError("gradual: size counts layers or groups; with a list of expressions leave it out.")
        pieces = tuple(by)
    if head_steps is None:
        head_steps = every
    _steps("gradual", "head_steps", head_steps, least=0)
    if not isinstance(decay, (int, float)) or not 0 < decay <= 1:
        raise UserError(f"gradual: decay={decay!r} must be above 0 and at most 1.")
    by_text = repr(by) if isinstance(by, str) else repr(list(by))
    name = f"gradual({every}, by={by_text}, size={size}, head_steps={head_steps}, decay={decay:g})"
    return Gradual(name, every, pieces, size, head_steps, float(decay))
