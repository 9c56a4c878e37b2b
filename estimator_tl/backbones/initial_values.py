"""Values that variables have before the first step, and how they reach the Estimator's session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from estimator_tl.compat import tf

#: Returns values by variable name; called when there is no checkpoint to restore, once.
Values = Callable[[], Mapping[str, Any]]
_ASSIGN_BYTES = 32 << 20


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


def assign(session: Any, variables: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Assigns values in a session, in parts of some 32 MB, without adding an op to its graph."""
    pending: dict[Any, Any] = {}
    size = 0
    for name, value in values.items():
        variable = variables[name]
        for copy in getattr(variable, "values", None) or (variable,):
            # Feeding the initializer's own value tensor adds no op to the graph.
            pending[copy.initializer] = (copy.initializer.inputs[1], value)
        size += value.nbytes
        if size >= _ASSIGN_BYTES:
            _run(session, pending)
            pending, size = {}, 0
    _run(session, pending)


def _run(session: Any, pending: Mapping[Any, tuple[Any, Any]]) -> None:
    if pending:
        session.run(list(pending), feed_dict=dict(pending.values()))
