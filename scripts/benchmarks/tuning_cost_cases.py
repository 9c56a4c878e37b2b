"""The tunings to measure, and a phased run through all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import estimator_tl as etl
from estimator_tl.structure import SourceStructure
from estimator_tl.tuning import Phased, Policy

#: Steps of a phase: more than any measurement makes, so no measurement reaches the next phase.
PHASE_STEPS = 1_000_000
_GOALS = {"frozen": 1.05, "partial": 1.10, "full": 1.03}


@dataclasses.dataclass(frozen=True)
class Case:
    """One tuning.

    Attributes:
      sort: frozen, partial or full.
      policy: the tuning policy.
      names: names of the backbone's variables that the policy trains.
    """

    sort: str
    policy: Policy
    names: frozenset[str]

    @property
    def goal(self) -> float:
        """The maximum cost of a step, as a multiple of a step of a hand-written model_fn."""
        return _GOALS[self.sort]


def make_cases(structure: SourceStructure, depths: int) -> list[Case]:
    """Returns the tunings, from the frozen backbone to the full one.

    Args:
      structure: structure of the backbone.
      depths: number of partial tunings, evenly spread over the groups of variables, which every source has.

    Raises:
      SystemExit: the backbone has too few groups.
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
    """Returns the phased policy with one phase for each case, in order."""
    phases = [etl.tuning.phase(c.policy, until=(i + 1) * PHASE_STEPS) for i, c in enumerate(cases[:-1])]
    return etl.tuning.phases(*phases, cases[-1].policy)
