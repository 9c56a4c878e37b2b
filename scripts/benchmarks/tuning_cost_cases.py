"""The tunings that are measured, and the phased run that goes through all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import estimator_tl as etl
from estimator_tl.structure import SourceStructure
from estimator_tl.tuning import Phased, Policy

#: Steps of a phase: more than any measurement makes, so that none runs into the next phase.
PHASE_STEPS = 1_000_000
_GOALS = {"frozen": 1.05, "partial": 1.10, "full": 1.03}


@dataclasses.dataclass(frozen=True)
class Case:
    """One tuning.

    Attributes:
      sort: frozen, partial or full.
      policy: the tuning.
      names: of the backbone's variables that it trains.
    """

    sort: str
    policy: Policy
    names: frozenset[str]

    @property
    def goal(self) -> float:
        """The most that its step may cost, in steps of a hand-written model_fn."""
        return _GOALS[self.sort]


def make_cases(structure: SourceStructure, depths: int) -> list[Case]:
    """Returns the tunings from the frozen backbone to the whole one.

    Args:
      structure: of the backbone.
      depths: how many of partial tuning, evenly spread over the groups of variables, which every source has.

    Raises:
      SystemExit: the backbone has not so many groups.
    """
    groups = len(structure.groups())
    if not 0 < depths < groups:
        raise SystemExit(f"--depths={depths} must be from 1 to {groups - 1}: the backbone has {groups} groups.")
    sizes = [round(groups * (index + 1) / (depths + 1)) for index in range(depths)]
    policies = [("frozen", etl.tuning.frozen())]
    policies += [("partial", etl.tuning.last_groups(size)) for size in sizes]
    policies.append(("full", etl.tuning.full()))
    return [Case(sort, policy, frozenset(policy.select(structure))) for sort, policy in policies]


def phased(cases: Sequence[Case]) -> Phased:
    """Returns the gradual run that has each case as a phase, in order."""
    phases = [etl.tuning.phase(c.policy, until=(i + 1) * PHASE_STEPS) for i, c in enumerate(cases[:-1])]
    return etl.tuning.phases(*phases, cases[-1].policy)
