"""The operations of the package tensorflow-text, which SavedModels with tokenizers inside need."""

from __future__ import annotations

import glob
import importlib
import importlib.util
import os

from estimator_tl.compat.versions import load_tensorflow

_MISSING = "Op type not registered"


def is_missing_operation(error: Exception) -> bool:
    """Whether a model could not be loaded because this process lacks an operation."""
    return _MISSING in str(error)


def missing_operation(error: Exception) -> str:
    """Returns the name of the operation that such an error names."""
    return str(error).partition(_MISSING)[2].strip(" '").partition("'")[0]


def load_text_operations() -> bool:
    """Registers what tensorflow-text has; returns False where it is not installed.

    Its import fails where one of its libraries does (in 2.21.0 those that use ICU,
    https://github.com/tensorflow/text/issues/1541); the libraries that can be loaded are, then.
    """
    found = importlib.util.find_spec("tensorflow_text")
    if found is None or found.origin is None:
        return False
    try:
        importlib.import_module("tensorflow_text")
    except ImportError:
        tf = load_tensorflow()
        for library in sorted(glob.glob(os.path.join(os.path.dirname(found.origin), "python", "ops", "*.so"))):
            try:
                tf.load_op_library(library)
            except tf.errors.OpError:
                continue
    return True


def text_remedy() -> str:
    """Says how to get the tensorflow-text that belongs to this TensorFlow."""
    minor = ".".join(load_tensorflow().__version__.split(".")[:2])
    return f"pip install 'tensorflow-text=={minor}.*'"
