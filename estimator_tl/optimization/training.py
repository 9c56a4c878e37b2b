"""The op of one training step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError, shortened
from estimator_tl.optimization.foreign import ForeignOptimizer
from estimator_tl.optimization.optimizers import Optimizer
from estimator_tl.spans import Interval, Span
from estimator_tl.tf_internals import tpu
from estimator_tl.tf_internals.graphs.gating import Gate, NotGatedError
from estimator_tl.tf_internals.graphs.slots import create_slots
from estimator_tl.types import Tensor, Variable

#: Graph collection of the `Gradient`s that each replica's train op applies.
GRADIENTS = "estimator_tl/gradients"


@dataclasses.dataclass(frozen=True)
class Gradient:
    """The gradient of one replica's loss for a variable; the optimizer applies the sum over replicas.

    Attributes:
      value: a tensor or IndexedSlices.
      variable: the graph's variable; with a distribution strategy the distributed variable, not one replica's copy.
      moves: bool scalar tensor, whether the step moves the variable; None if all steps move it.
    """

    value: Any
    variable: Variable
    moves: Any = None

    @property
    def name(self) -> str:
        """The name of the gradient's tensor; needed to save the collection with a graph."""
        return str(self.value.name)


def train_op(
    optimizer: Optimizer | ForeignOptimizer,
    loss: Tensor,
    variables: Sequence[Variable],
    updates: Sequence[Tensor],
    total_steps: int | None,
    spans: Sequence[Span] = (Span(),),
    steps: Mapping[str, Sequence[Interval]] | None = None,
    only: Sequence[Any] | None = None,
    cores: int = 1,
) -> Any:
    """Returns the op of one training step: gradients of `variables` applied, updates run, global step advanced.

    Args:
      optimizer: the optimizer.
      loss: scalar tensor.
      variables: all variables that the optimizer moves in the run; the graph gets the slot variables of all.
      updates: ops to run before the gradients are applied.
      total_steps: the global step at which the run ends, if known.
      spans: the spans of the plan, in order.
      steps: the steps in which a variable is trained, by the name of its op; a variable without an entry is always
        trained.
      only: the variables that this graph moves, if every step of the graph moves all of them. They need no gates, and
        no gradients of the other variables are computed.
      cores: the number of TPU cores that share the step; 1 elsewhere, where the distribution strategy sums gradients.

    Raises:
      UserError: the loss does not depend on one of the variables, so it would silently not train; or the
        optimizer cannot be gated.
    """
    step = tf.compat.v1.train.get_or_create_global_step()
    now = tf.identity(step)
    graph_optimizer = optimizer.in_graph(now, spans, total_steps)
    gate = Gate(steps or {}, now, switch=only is None)
    if steps:
        gate.put_on(graph_optimizer)
    targets = list(variables if only is None else only)
    gradients = graph_optimizer.compute_gradients(loss, var_list=targets)
    independent = [variable.op.name for gradient, variable in gradients if gradient is None]
    if independent:
        raise UserError(
            f"the loss does not depend on {len(independent)} trainable variables ({shortened(independent, 3)}); "
            "freeze them, e.g. with scopes(...)."
        )
    gradients = tpu.mean_over_cores(gradients, cores)
    for gradient, variable in gradients:
        tf.compat.v1.add_to_collection(GRADIENTS, Gradient(gradient, variable, gate.moves(variable)))
    try:
        with tf.control_dependencies(list(updates)), gate.checked(targets):
            if only is not None:
                create_slots(graph_optimizer, variables)
            return graph_optimizer.apply_gradients(gradients, global_step=step)
    except NotGatedError as error:
        raise UserError(str(error)) from error
