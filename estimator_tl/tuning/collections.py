"""Graph collections that agree with the plan, for code that reads the collections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.tuning.plan import VariablePlan

BACKBONE = "estimator_tl/backbone"
HEAD = "estimator_tl/head"
TRAINABLE = "estimator_tl/trainable"
FROZEN = "estimator_tl/frozen"


def publish(plan: VariablePlan, backbone: Mapping[str, Any], head: Sequence[Any]) -> list[Any]:
    """Fills the project's collections and corrects TRAINABLE_VARIABLES.

    Only variables of the backbone and the head are changed. Variables that user
    code has put into TRAINABLE_VARIABLES stay.

    Args:
      plan: the plan of the run.
      backbone: the graph's variables, by their names in the structure.
      head: the head's variables.

    Returns:
      The variables for the optimizer.
    """
    graph = tf.compat.v1.get_default_graph()
    trainable = [variable for name, variable in backbone.items() if name in plan.trainable] + list(head)
    frozen = [backbone[name] for name in plan.frozen]
    for name, variables in (
        (BACKBONE, backbone.values()),
        (HEAD, head),
        (TRAINABLE, trainable),
        (FROZEN, frozen),
    ):
        graph.get_collection_ref(name)[:] = list(variables)
    collection = graph.get_collection_ref(tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES)
    ours = {id(variable) for variable in (*backbone.values(), *head)}
    collection[:] = [variable for variable in collection if id(variable) not in ours] + trainable
    return trainable
