"""Variables of which each replica of a strategy has a copy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from estimator_tl.compat.versions import load_tensorflow


def copies(variable: Any) -> tuple[Any, ...]:
    """Returns the copies of a variable, one for each replica of a strategy; itself where it has none."""
    return tuple(getattr(variable, "values", None) or (variable,))


def has_copies(variable: Any) -> bool:
    """Returns whether each replica of a strategy has a copy of a variable."""
    return bool(getattr(variable, "values", None))


def keep_as_it_is(variable: Any) -> None:
    """Has a variable that nothing moves saved from one replica.

    Keras has batch-norm statistics averaged over the replicas when they are saved. Of three equal numbers the average
    may be another number, so that statistics which are frozen would change with each restart.

    Args:
      variable: of a strategy, or an ordinary one, which is left alone.
    """
    tf = load_tensorflow()
    if has_copies(variable) and variable.synchronization == tf.VariableSynchronization.ON_READ:
        variable._aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA


@contextlib.contextmanager
def listed_as_wholes() -> Iterator[None]:
    """A block whose variables the graph lists as those of the strategy, not as one for each replica.

    Loaded SavedModels list the latter, and a checkpoint would hold a copy for each replica: with more of them it could
    not be restored.
    """
    tf = load_tensorflow()
    listed = tf.compat.v1.get_collection_ref(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)
    before = len(listed)
    yield
    wholes: dict[int, Any] = {}
    for variable in listed[before:]:
        container = getattr(variable, "_distributed_container", None)
        whole = variable if container is None else container()
        wholes[id(whole)] = whole
    listed[before:] = wholes.values()
