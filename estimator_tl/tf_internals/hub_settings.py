"""TensorFlow Hub's settings: its environment variables, or its flags in programs that parse them."""

from __future__ import annotations

import os
from typing import Any

from estimator_tl.errors import check_known

LOAD_FORMATS = ("AUTO", "COMPRESSED", "UNCOMPRESSED")


def cache_folder() -> str:
    """Returns the folder of Hub's cache: TFHUB_CACHE_DIR, or the temporary folder that Hub chooses."""
    return os.environ.get("TFHUB_CACHE_DIR") or str(_resolver().tfhub_cache_dir(use_temp=True))


def reads_uncompressed() -> bool:
    """True if TFHUB_MODEL_LOAD_FORMAT asks for the files of a module instead of its archive.

    Raises:
      UserError: the value is not one of Hub's formats.
    """
    value = os.environ.get("TFHUB_MODEL_LOAD_FORMAT") or _resolver().model_load_format()
    return check_known("TFHUB_MODEL_LOAD_FORMAT", value, LOAD_FORMATS) == "UNCOMPRESSED"


def checks_certificates() -> bool:
    """False if TFHUB_DISABLE_CERT_VALIDATION is ``true``."""
    return os.environ.get("TFHUB_DISABLE_CERT_VALIDATION") != "true"


def _resolver() -> Any:
    from estimator_tl.compat.versions import load_hub

    load_hub()
    from tensorflow_hub import resolver

    return resolver
