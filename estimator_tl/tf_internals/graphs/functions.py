"""Functions of tensors, traced once for use in all graphs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from estimator_tl.compat import tf


def traced(function: Callable[..., Any], *signature: Any) -> Any:
    """Traces a function and returns one that any graph may call.

    Its branches and loops remain calls of functions. By default, TensorFlow would expand them in each graph that calls
    the function, and would prepare all of them whenever such a graph starts, also the many that never run.

    Args:
      function: takes tensors; its result must depend on nothing else.
      *signature: a `tf.TensorSpec` for each argument.
    """
    context = importlib.import_module("tensorflow.python.eager.context")
    # `init_scope`: a function keeps the graph in which it was traced alive, so trace it outside of the current graph.
    # `device(None)`: the devices of the graph that calls it first may belong to one task of a cluster.
    # The executor type has no effect on calls from graphs, but it makes TensorFlow leave branches and loops unexpanded.
    with tf.init_scope(), tf.device(None), context.function_executor_type("SINGLE_THREADED_EXECUTOR"):
        return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
