"""Decides which variables of a backbone are trained: tuning policies, and the VariablePlan that follows from them."""

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
