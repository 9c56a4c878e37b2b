"""Variables with a copy in each replica of a strategy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.types import Variable


def copies(variable: Variable) -> tuple[Any, ...]:
    """Returns the copies of a variable, one for each replica of a strategy; the variable itself if it has no copies."""
    return tuple(getattr(variable, "values", None) or (variable,))


def has_copies(variable: Variable) -> bool:
    """True if each replica of a strategy has a copy of the variable."""
    return bool(getattr(variable, "values", None))


def save_from_first_replica(variable: Variable) -> None:
    """Makes a frozen variable be saved from the first replica only.

    Keras averages batch-norm statistics over the replicas when they are saved. The average of three equal numbers may
    differ from them by rounding, so frozen statistics would change with each restart.

    Args:
      variable: a variable of a strategy; other variables are left alone.
    """
    tf = load_tensorflow()
    if has_copies(variable) and variable.synchronization == tf.VariableSynchronization.ON_READ:
        variable._aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA


@contextlib.contextmanager
def listing_strategy_variables() -> Iterator[None]:
    """A block whose new variables the graph lists once each, as variables of the strategy.

    A loaded SavedModel lists one variable for each replica. A checkpoint would then hold a copy for each replica, and a
    run with more replicas could not restore it.
    """
    tf = load_tensorflow()
    collection = tf.compat.v1.get_collection_ref(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)
    before = len(collection)
    yield
    wholes: dict[int, Any] = {}
    for variable in collection[before:]:
        container = getattr(variable, "_distributed_container", None)
        whole = container() if container is not None else variable
        wholes[id(whole)] = whole
    collection[before:] = wholes.values()
