"""Tokenizers that come as a SavedModel, as those beside the encoders on TensorFlow Hub.

Such a model maps strings to the inputs of its encoder. Those with `tokenize` and `bert_pack_inputs` can be packed to
any length; others have one of their own.
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
from estimator_tl.tf_internals.eager import run_eagerly_apart

_DEFAULT_LENGTH = 128  # of the preprocessing models on Hub


class Preprocessing:
    """A SavedModel that maps strings [batch] to the int32 [batch, length] inputs of an encoder."""

    def __init__(self, path: str, length: int | None, allow_unsafe_deserialization: bool = False):
        """Reads what the model gives.

        Args:
          path: the folder that holds saved_model.pb.
          length: tokens in each row; None for what the model gives by itself.
          allow_unsafe_deserialization: load a model that reads or writes files, too.

        Raises:
          UserError: the folder is no such model, or gives rows of another length.
        """
        self._path, self._length = path, length
        with about(path):
            check_saved_model(path, allow_unsafe_deserialization)
            self.names, self.length = run_eagerly_apart(self._describe)
            if length not in (None, self.length):
                raise UserError(
                    f"{SOURCE} gives rows of {self.length} tokens, not of seq_length={length}; leave seq_length out, "
                    "or use a model with tokenize and bert_pack_inputs."
                )

    def _describe(self) -> tuple[frozenset[str], int]:
        """Returns the names of what the model gives, and how many tokens."""
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

    def _tokens(self, model: Any, texts: Any) -> Any:
        can_pack = hasattr(model, "tokenize") and hasattr(model, "bert_pack_inputs")
        if can_pack and self._length not in (None, _DEFAULT_LENGTH):
            return model.bert_pack_inputs([model.tokenize(texts)], seq_length=tf.constant(self._length))
        return model(texts) if callable(model) else model.signatures["serving_default"](texts)

    def digest(self) -> str:
        """``sha256:...`` of the model's folder."""
        return folder_digest(self._path)

    def __call__(self, texts: Any) -> dict[str, Any]:
        """Returns the inputs of an encoder for strings [batch], in the current graph."""
        with about(self._path):
            model = load_in_graph(self._path).model
        tokens = self._tokens(model, texts)
        return {name: tf.ensure_shape(value, [None, self.length]) for name, value in tokens.items()}


def _no_preprocessing(why: str) -> UserError:
    return UserError(f"{SOURCE} is not a preprocessing model for text: {why}; give that of the encoder.")
