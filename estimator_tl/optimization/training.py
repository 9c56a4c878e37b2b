"""The op of one training step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.optimization.foreign import ForeignOptimizer
from estimator_tl.optimization.optimizers import Optimizer
from estimator_tl.spans import Interval, Span
from estimator_tl.tf_internals import tpu
from estimator_tl.tf_internals.graphs.gating import Gate, NotGatedError
from estimator_tl.tf_internals.graphs.slots import create_slots

#: Graph collection of the `Gradient`s that each replica's train op applies.
GRADIENTS = "estimator_tl/gradients"


@dataclasses.dataclass(frozen=True)
class Gradient:
    """What a replica's loss says about a variable; the sum over replicas is applied.

    Attributes:
      value: a tensor or IndexedSlices.
      variable: of the graph; of a strategy as a whole.
      moves: bool scalar tensor, whether the step moves the variable; None where all steps do.
    """

    value: Any
    variable: Any
    moves: Any = None

    @property
    def name(self) -> str:
        """By which a saved graph knows the member of a collection."""
        return str(self.value.name)


def train_op(
    optimizer: Optimizer | ForeignOptimizer,
    loss: Any,
    variables: Sequence[Any],
    updates: Sequence[Any],
    total_steps: int | None,
    spans: Sequence[Span] = (Span(),),
    steps: Mapping[str, Sequence[Interval]] | None = None,
    only: Sequence[Any] | None = None,
    cores: int = 1,
) -> Any:
    """Returns the op of one training step: gradients of `variables` applied, updates run, global step advanced.

    Args:
      optimizer: which rule.
      loss: scalar tensor.
      variables: what the rule may move in the run; all have their slots in the graph.
      updates: ops that run before it.
      total_steps: the step at which the run ends, where it is known.
      spans: of the plan, in order.
      steps: when a variable is moved, by its op's name; always where it is not named.
      only: the variables that this graph moves, where it serves steps in which all of them move; they are then
        not gated, and the others cost nothing.
      cores: of a TPU that share the step; 1 elsewhere, where strategies sum gradients by themselves.

    Raises:
      UserError: the loss does not depend on one of the variables, so it would silently not train; or the
        optimizer cannot be gated.
    """
    step = tf.compat.v1.train.get_or_create_global_step()
    now = tf.identity(step)
    built = optimizer.in_graph(now, spans, total_steps)
    gate = Gate(steps or {}, now, switch=only is None)
    if steps:
        gate.put_on(built)
    moved = list(variables if only is None else only)
    gradients = built.compute_gradients(loss, var_list=moved)
    unreached = [variable.op.name for gradient, variable in gradients if gradient is None]
    if unreached:
        raise UserError(
            f"the loss does not depend on {len(unreached)} planned variables ({', '.join(unreached[:3])}); "
            "freeze them, e.g. with scopes(...)."
        )
    gradients = tpu.mean_over_cores(gradients, cores)
    for gradient, variable in gradients:
        tf.compat.v1.add_to_collection(GRADIENTS, Gradient(gradient, variable, gate.moves(variable)))
    try:
        with tf.control_dependencies(list(updates)), gate.checked(moved):
            if only is not None:
                create_slots(built, variables)
            return built.apply_gradients(gradients, global_step=step)
    except NotGatedError as error:
        raise UserError(str(error)) from error
