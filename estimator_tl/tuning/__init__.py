"""Which variables of a source move: policies, and the VariablePlan that they make."""

from estimator_tl.tuning.plan import VariablePlan, make_plan
from estimator_tl.tuning.policies import Policy, from_layer, frozen, full, last_groups, last_layers, registry, scopes

__all__ = [
    "Policy",
    "VariablePlan",
    "from_layer",
    "frozen",
    "full",
    "last_groups",
    "last_layers",
    "make_plan",
    "registry",
    "scopes",
]
