"""How SavedModels are loaded: eagerly for their description, and into the graph that uses them."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat import text_ops, tf
from estimator_tl.compat.replicas import listed_as_wholes
from estimator_tl.errors import UserError


def load_eagerly(path: str, handle: str) -> Any:
    """Loads a SavedModel to look at it.

    Args:
      path: the folder that holds saved_model.pb.
      handle: what the user called it.

    Raises:
      UserError: it cannot be loaded.
    """
    try:
        return _load(path)
    except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
        if text_ops.is_missing_operation(error):
            raise UserError(
                f"{handle} needs the operation {text_ops.missing_operation(error)}, which this TensorFlow lacks; for "
                f"models with tokenizers inside {text_ops.text_remedy()}, for others import the package that has it "
                "by --import_modules."
            ) from error
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{handle} is not a loadable SavedModel ({first_line}); check or re-export it.") from error


def _load(path: str) -> Any:
    """Loads a SavedModel, with the operations of tensorflow-text where it needs them and they are installed."""
    try:
        return tf.saved_model.load(path)
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        if not text_ops.is_missing_operation(error) or not text_ops.load_text_operations():
            raise
    return tf.saved_model.load(path)


def load_in_graph(path: str) -> Any:
    """Loads a SavedModel into the current graph; once for all replicas, which would get variables of their own."""
    if not tf.distribute.has_strategy():
        return tf.saved_model.load(path)

    def load(strategy: Any) -> Any:
        del strategy
        with listed_as_wholes():
            return tf.saved_model.load(path)

    return tf.distribute.get_replica_context().merge_call(load)
