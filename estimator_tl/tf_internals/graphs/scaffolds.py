"""A Scaffold for variables whose values are known: their initializers are not run before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.tf_internals.files.checkpoints import assign


def assigning_scaffold(
    variables: Mapping[str, Any], read: Callable[[], Mapping[str, Any]], others: Mapping[str, Any]
) -> Any:
    """Returns a Scaffold that gives variables their values where no checkpoint is restored.

    Values that a model_fn assigns in any other way are lost: its sessions are not the Estimator's.

    Random values before would only be thrown away: drawing them takes time, and more memory than the variables
    themselves. Under a strategy Estimator makes a Scaffold of its own from those of the replicas, which does draw them.

    Args:
      variables: variables of the graph by name, those of a strategy too, of which most have values.
      read: values by name, called once; variables without one take what their initializers give.
      others: further variables of which some may have values.
    """
    tf = load_tensorflow()
    v1 = tf.compat.v1

    class AssigningScaffold(v1.train.Scaffold):  # type: ignore[name-defined, misc]
        _init_op: Any
        is_apart = False  # whether the initializers of `variables` are left to init_fn

        def finalize(self) -> Any:
            if self._init_op is None and not tf.distribute.has_strategy():
                self.is_apart = True
                self._init_op = _initializers_of_others(v1, variables)
            return super().finalize()

    def init_fn(scaffold: Any, session: Any) -> None:
        del scaffold
        values = read()
        assign(session, {**variables, **others}, values)
        rest = [variable.initializer for name, variable in variables.items() if name not in values]
        if made.is_apart and rest:
            session.run(rest)

    made = AssigningScaffold(init_fn=init_fn)
    return made


def _initializers_of_others(v1: Any, variables: Mapping[str, Any]) -> Any:
    """Returns what a Scaffold runs by itself, without the initializers of these variables."""
    from tensorflow.python.ops import resources

    own = {id(variable) for variable in variables.values()}
    others = [variable for variable in v1.global_variables() if id(variable) not in own]
    # In SavedModels of TensorFlow 2 their variables have initializers in a collection of their own.
    of_saved_models = v1.get_collection("saved_model_initializers")
    return v1.group(
        v1.variables_initializer(others),
        resources.initialize_resources(resources.shared_resources()),
        *of_saved_models,
    )
