"""Values that variables have before the first step, and how they reach the Estimator's session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.compat.checkpoints import assign

#: Returns values by variable name; called when there is no checkpoint to restore, once.
Values = Callable[[], Mapping[str, Any]]


def assigning_scaffold(variables: Mapping[str, Any], read: Values) -> Any:
    """Returns a Scaffold that assigns values where no checkpoint is restored.

    Values that a model_fn assigns in any other way are lost: its sessions are not the Estimator's.

    Args:
      variables: the graph's variables by name, those of a strategy too.
      read: their values; variables that it does not name keep what their initializers give.
    """

    def init_fn(scaffold: Any, session: Any) -> None:
        del scaffold
        assign(session, variables, read())

    return tf.compat.v1.train.Scaffold(init_fn=init_fn)
