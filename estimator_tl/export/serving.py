"""SavedModels for TF Serving that take encoded images, or text.

A REST request holds ``{"instances": [{"image_bytes": {"b64": "..."}}]}``. The server decodes the base64, not the graph.
https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from estimator_tl.files import check_literal, no_room
from estimator_tl.inputs.images.feature import decode_image
from estimator_tl.specs import ImageSpec, InputSpec, TextSpec
from estimator_tl.tf_internals.files.checkpoint_state import latest_checkpoint
from estimator_tl.tf_internals.graphs.placement import on_cpu
from estimator_tl.types import Estimator

BYTES_KEY = "image_bytes"


def image_receiver_fn(spec: ImageSpec) -> Callable[[], Any]:
    """Returns a serving_input_receiver_fn for a batch of encoded images.

    Args:
      spec: `backbone.image_spec`; images of any size and format are decoded, resized and preprocessed exactly as in
        training.
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
    """Returns a serving_input_receiver_fn for a batch of strings, with the key ``text``."""

    def receiver() -> Any:
        with on_cpu():
            texts = tf.compat.v1.placeholder(tf.string, [None], name=TextSpec.key)
        return estimator.export.ServingInputReceiver({TextSpec.key: texts}, {TextSpec.key: texts})

    return receiver


def receiver_fn_of(spec: InputSpec) -> Callable[[], Any]:
    """Returns the serving_input_receiver_fn for an input spec."""
    if isinstance(spec, TextSpec):
        return text_receiver_fn()
    return image_receiver_fn(spec)


@contextlib.contextmanager
def whole_versions(export_dir: str) -> Iterator[None]:
    """A block that writes a version atomically: if it fails, partial files are removed.

    Estimator writes into a folder ``temp-...`` and renames it at the end.
    """
    new = [path for path in (Path(export_dir), *Path(export_dir).parents) if not path.exists()]
    before = set(Path(export_dir).glob("temp-*"))
    try:
        yield
    except BaseException:
        for part in set(Path(export_dir).glob("temp-*")) - before:
            shutil.rmtree(part, ignore_errors=True)
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def export_saved_model(
    trained: Estimator, export_dir: str, spec: InputSpec, labels: Sequence[str] = (), checkpoint_path: str | None = None
) -> str:
    """Exports an Estimator as ``export_dir/VERSION``, a SavedModel for TF Serving.

    Args:
      trained: an Estimator with a checkpoint.
      export_dir: the folder of the versions, which the server watches.
      spec: the input of the model, `backbone.input_spec`.
      labels: class names, stored as assets.extra/labels.txt.
      checkpoint_path: the checkpoint to export; the newest whole checkpoint by default.

    Returns:
      The folder of the new version.

    Raises:
      UserError: the folder cannot be written, or the Estimator has no checkpoint. No partial version is left.

    Example:
      >>> estimator = etl.estimator.Estimator(model_fn, "runs/flowers", params={})
      >>> version = etl.export_saved_model(estimator, "serving/flowers", backbone.input_spec, data.labels)
      >>> server = etl.compat.tf.saved_model.load(version).signatures["serving_default"]
      >>> sorted(server.structured_outputs)
      ['all_class_ids', 'all_classes', 'class_ids', 'classes', 'logits', 'probabilities']
    """
    checkpoint = checkpoint_path or latest_checkpoint(trained.model_dir)
    if checkpoint is None:
        raise UserError(f"{trained.model_dir} holds no checkpoint to export; train to its first one.")
    check_literal(export_dir, "export_dir")
    try:
        with whole_versions(export_dir), tempfile.TemporaryDirectory() as folder:
            label_file = Path(folder, "labels.txt")
            label_file.write_text("".join(f"{label}\n" for label in labels))
            extra = {"labels.txt": str(label_file)} if labels else None
            path = trained.export_saved_model(export_dir, receiver_fn_of(spec), extra, checkpoint_path=checkpoint)
    except (OSError, tf.errors.OpError) as error:
        reason: Any = no_room(error)
        if isinstance(error, (OSError, tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError)):
            reason = reason or error
        if not reason:
            raise
        raise UserError(f"cannot write the export to {export_dir} ({reason}); choose another --export_dir.") from error
    return str(tf.compat.as_str_any(path))
