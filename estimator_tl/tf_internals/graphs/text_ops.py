"""The operations of the package tensorflow-text, which SavedModels with a tokenizer need."""

from __future__ import annotations

import glob
import importlib
import importlib.util
import os

from estimator_tl.compat.versions import load_tensorflow

_MISSING = "Op type not registered"


def is_missing_operation(error: Exception) -> bool:
    """True if loading a model failed because an operation is not registered in this process."""
    return _MISSING in str(error)


def missing_operation(error: Exception) -> str:
    """Returns the name of the missing operation from the error."""
    return str(error).partition(_MISSING)[2].strip(" '").partition("'")[0]


def load_text_operations() -> bool:
    """Registers the operations of tensorflow-text; returns False if the package is not installed.

    The import of the package fails if one of its libraries fails to load (in 2.21.0 the libraries that use ICU,
    https://github.com/tensorflow/text/issues/1541). Then this function loads each library that loads.
    """
    spec = importlib.util.find_spec("tensorflow_text")
    if spec is None or spec.origin is None:
        return False
    try:
        importlib.import_module("tensorflow_text")
    except ImportError:
        tf = load_tensorflow()
        for library in sorted(glob.glob(os.path.join(os.path.dirname(spec.origin), "python", "ops", "*.so"))):
            try:
                tf.load_op_library(library)
            except tf.errors.OpError:
                continue
    return True


def text_remedy() -> str:
    """Returns the command that installs the tensorflow-text for this TensorFlow."""
    minor = ".".join(load_tensorflow().__version__.split(".")[:2])
    return f"pip install 'tensorflow-text=={minor}.*'"
