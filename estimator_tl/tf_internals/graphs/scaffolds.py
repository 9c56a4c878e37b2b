"""A Scaffold that assigns given values to variables, without first running their initializers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.tf_internals.files.checkpoints import assign
from estimator_tl.types import Session, Variable


def assigning_scaffold(
    variables: Mapping[str, Variable], read: Callable[[], Mapping[str, Any]], others: Mapping[str, Any]
) -> Any:
    """Returns a Scaffold that assigns values to variables if no checkpoint is restored.

    There is no other way: values that a model_fn assigns in a session are lost, as Estimator trains in another one.

    The Scaffold skips the initializers of these variables. Drawing random values takes time, and more memory than the
    variables themselves, and the values would be overwritten. Under a strategy, Estimator merges the Scaffolds of the
    replicas into a new one, which does run the initializers.

    Args:
      variables: variables of the graph by name, also of a strategy; most of them have values.
      read: returns the values by name; called once. A variable without a value runs its initializer.
      others: other variables by name; some of them may have values.
    """
    tf = load_tensorflow()
    v1 = tf.compat.v1

    class AssigningScaffold(v1.train.Scaffold):  # type: ignore[name-defined, misc]
        _init_op: Any
        skips_initializers = False  # whether init_fn has to run the initializers of variables without values

        def finalize(self) -> Any:
            if self._init_op is None and not tf.distribute.has_strategy():
                self.skips_initializers = True
                self._init_op = _initializers_of_others(v1, variables)
            return super().finalize()

    def init_fn(scaffold: Any, session: Session) -> None:
        del scaffold
        values = read()
        assign(session, {**variables, **others}, values)
        rest = [variable.initializer for name, variable in variables.items() if name not in values]
        if result.skips_initializers and rest:
            session.run(rest)

    result = AssigningScaffold(init_fn=init_fn)
    return result


def _initializers_of_others(v1: Any, variables: Mapping[str, Variable]) -> Any:
    """Returns the default init_op of a Scaffold, without the initializers of these variables."""
    from tensorflow.python.ops import resources

    excluded = {id(variable) for variable in variables.values()}
    others = [variable for variable in v1.global_variables() if id(variable) not in excluded]
    return v1.group(
        v1.variables_initializer(others),
        resources.initialize_resources(resources.shared_resources()),
        *v1.get_collection("saved_model_initializers"),  # the initializers of variables in TensorFlow 2 SavedModels
    )
