"""Functions of tensors that are traced once for all graphs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from estimator_tl.compat import tf


def traced(function: Callable[..., Any], *signature: Any) -> Any:
    """Traces a function and returns one that any graph may call.

    Its branches and loops stay functions that are called. TensorFlow would make them parts of each graph that calls
    the function and prepare all of them whenever one begins, the many that never run too.

    Args:
      function: of tensors; it must depend on nothing else.
      *signature: a `tf.TensorSpec` for each of its arguments.
    """
    context = importlib.import_module("tensorflow.python.eager.context")
    # A graph that a function is traced in stays alive with it. The executor is that of no call here, but for its sake
    # TensorFlow leaves branches and loops as they are.
    # Nor are its devices those of the graph that calls it first, which may be of a task of a cluster.
    with tf.init_scope(), tf.device(None), context.function_executor_type("SINGLE_THREADED_EXECUTOR"):
        return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
