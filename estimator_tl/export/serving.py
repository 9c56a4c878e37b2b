"""SavedModels for TF Serving that take encoded pictures, or text.

Over REST a request holds ``{"instances": [{"image_bytes": {"b64": "..."}}]}``;
the server undoes the base64, so the graph does not.
https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from estimator_tl.compat import estimator, tf
from estimator_tl.compat.placement import on_cpu
from estimator_tl.errors import UserError
from estimator_tl.inputs.images import decode_image
from estimator_tl.specs import ImageSpec, InputSpec, TextSpec

BYTES_KEY = "image_bytes"


def image_receiver_fn(spec: ImageSpec) -> Callable[[], Any]:
    """Returns a serving_input_receiver_fn for a batch of encoded pictures.

    Args:
      spec: `backbone.image_spec`; pictures of any size and format are decoded,
        resized and preprocessed exactly as in training.
    """

    def receiver() -> Any:
        # An unknown batch dimension lets the server batch requests.
        with on_cpu():
            encoded = tf.compat.v1.placeholder(tf.string, [None], name=BYTES_KEY)
            images = tf.map_fn(
                lambda one: decode_image(one, spec), encoded, fn_output_signature=tf.TensorSpec(spec.shape, tf.float32)
            )
        return estimator.export.ServingInputReceiver({spec.key: images}, {BYTES_KEY: encoded})

    return receiver


def text_receiver_fn() -> Callable[[], Any]:
    """Returns a serving_input_receiver_fn for a batch of raw strings, ``text``."""

    def receiver() -> Any:
        with on_cpu():
            texts = tf.compat.v1.placeholder(tf.string, [None], name=TextSpec.key)
        return estimator.export.ServingInputReceiver({TextSpec.key: texts}, {TextSpec.key: texts})

    return receiver


def receiver_fn_of(spec: InputSpec) -> Callable[[], Any]:
    """Returns the serving_input_receiver_fn of a model that takes this input."""
    return text_receiver_fn() if isinstance(spec, TextSpec) else image_receiver_fn(spec)


def export_saved_model(trained: Any, export_dir: str, spec: InputSpec, labels: Sequence[str] = ()) -> str:
    """Exports an Estimator as ``export_dir/VERSION``, a SavedModel for TF Serving.

    Args:
      trained: an Estimator with a checkpoint.
      export_dir: where versions are kept; the server watches it.
      spec: `backbone.input_spec`.
      labels: class names, kept as assets.extra/labels.txt.

    Returns:
      The folder of the new version.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            label_file = Path(folder, "labels.txt")
            label_file.write_text("".join(f"{label}\n" for label in labels))
            extra = {"labels.txt": str(label_file)} if labels else None
            path = trained.export_saved_model(export_dir, receiver_fn_of(spec), assets_extra=extra)
    except (OSError, tf.errors.OpError) as error:
        if isinstance(error, (OSError, tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError)):
            raise UserError(
                f"cannot write the export to {export_dir} ({error}); choose another --export_dir."
            ) from error
        raise
    return str(tf.compat.as_str_any(path))
