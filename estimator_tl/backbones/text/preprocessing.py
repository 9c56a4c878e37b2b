"""Tokenizers that are SavedModels, such as the preprocessing models of the encoders on TensorFlow Hub.

Such a model maps strings to the inputs of its encoder. Models with `tokenize` and `bert_pack_inputs` support any
length; other models have a fixed length.
https://www.tensorflow.org/hub/common_saved_model_apis/text
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator_tl.backbones.digest import folder_digest
from estimator_tl.backbones.safety import check_saved_model
from estimator_tl.backbones.saved_model.loading import load_eagerly, load_in_graph
from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError, about
from estimator_tl.tf_internals.eager import run_eagerly_in_thread
from estimator_tl.types import Tensor

_DEFAULT_LENGTH = 128  # of the preprocessing models on Hub


class Preprocessing:
    """A SavedModel that maps strings [batch] to the int32 [batch, length] inputs of an encoder."""

    def __init__(self, path: str, length: int | None, allow_unsafe_deserialization: bool = False):
        """Reads the names and the length of the model's outputs.

        Args:
          path: the folder that holds saved_model.pb.
          length: tokens in each row; None for the model's own length.
          allow_unsafe_deserialization: also load a model that reads or writes files.

        Raises:
          UserError: the folder does not hold such a model, or its rows have another length.
        """
        self._path, self._length = path, length
        with about(path):
            check_saved_model(path, allow_unsafe_deserialization)
            self.names, self.length = run_eagerly_in_thread(self._describe)
            if length not in (None, self.length):
                raise UserError(
                    f"{SOURCE} gives rows of {self.length} tokens, not of seq_length={length}; leave seq_length out, "
                    "or use a model with tokenize and bert_pack_inputs."
                )

    def _describe(self) -> tuple[frozenset[str], int]:
        """Returns the names of the model's outputs, and the number of tokens in a row."""
        model = load_eagerly(self._path)
        try:
            tokens = self._tokens(model, tf.constant(["a text"]))
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise _no_preprocessing("it cannot be called with a batch of strings") from error
        if not isinstance(tokens, Mapping) or not all(hasattr(value, "shape") for value in tokens.values()):
            raise _no_preprocessing("it does not give a dict of tensors")
        lengths = {int(value.shape[1]) for value in tokens.values() if value.shape.rank == 2}
        if len(lengths) != 1 or any(value.shape.rank != 2 for value in tokens.values()):
            raise _no_preprocessing("its outputs are not all [batch, length]")
        return frozenset(tokens), lengths.pop()

    def _tokens(self, model: Any, texts: Tensor) -> Any:
        can_pack = hasattr(model, "tokenize") and hasattr(model, "bert_pack_inputs")
        if can_pack and self._length not in (None, _DEFAULT_LENGTH):
            return model.bert_pack_inputs([model.tokenize(texts)], seq_length=tf.constant(self._length))
        call = model if callable(model) else model.signatures["serving_default"]
        return call(texts)

    def digest(self) -> str:
        """Returns ``sha256:...`` of the model's folder."""
        return folder_digest(self._path)

    def __call__(self, texts: Tensor) -> dict[str, Any]:
        """Returns the inputs of an encoder for strings [batch], in the current graph."""
        with about(self._path):
            model = load_in_graph(self._path).model
        tokens = self._tokens(model, texts)
        return {name: tf.ensure_shape(value, [None, self.length]) for name, value in tokens.items()}


def _no_preprocessing(reason: str) -> UserError:
    return UserError(f"{SOURCE} is not a preprocessing model for text: {reason}; use the encoder's model.")
