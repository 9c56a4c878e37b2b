"""Which variables of a source move: policies, and the VariablePlan that they make."""

from estimator_tl.tuning.phases import Phase, Phased, gradual, linear_probe_then_full, phase, phases
from estimator_tl.tuning.plan import VariablePlan, make_plan
from estimator_tl.tuning.policies import Policy, from_layer, frozen, full, last_groups, last_layers, registry, scopes

__all__ = [
    "Phase",
    "Phased",
    "Policy",
    "VariablePlan",
    "from_layer",
    "frozen",
    "full",
    "gradual",
    "last_groups",
    "last_layers",
    "linear_probe_then_full",
    "make_plan",
    "phase",
    "phases",
    "registry",
    "scopes",
]
