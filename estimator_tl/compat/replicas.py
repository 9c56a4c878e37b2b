"""Variables of which each replica of a strategy has a copy."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat.versions import load_tensorflow


def keep_as_it_is(variable: Any) -> None:
    """Has a variable that nothing moves saved from one replica.

    Keras has batch-norm statistics averaged over the replicas when they are saved. Of three equal numbers the average
    may be another number, so that statistics which are frozen would change with each restart.

    Args:
      variable: of a strategy, or an ordinary one, which is left alone.
    """
    tf = load_tensorflow()
    if getattr(variable, "values", None) and variable.synchronization == tf.VariableSynchronization.ON_READ:
        variable._aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
