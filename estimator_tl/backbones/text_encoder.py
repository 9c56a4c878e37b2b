"""Encoders of token ids, BERT and its kin, with raw strings in: they are tokenized in the graph."""

from __future__ import annotations

from typing import Any

from estimator_tl.backbones.base import BuiltBackbone, check_input
from estimator_tl.backbones.caller import Caller
from estimator_tl.backbones.digest import file_digest, joined_digest
from estimator_tl.backbones.saved_model import SavedModelBackbone
from estimator_tl.backbones.wordpiece import WordPiece
from estimator_tl.compat import tf
from estimator_tl.structure import CallMode


class TextEncoderBackbone(SavedModelBackbone):
    """A SavedModel that takes ``input_word_ids``, ``input_mask`` and ``input_type_ids``, behind a tokenizer."""

    kind = "TF2 SavedModel of token ids"

    def __init__(self, path: str, handle: str, vocab: str, seq_length: int, lower_case: bool, **settings: Any):
        """Reads the encoder and the vocabulary.

        Args:
          path: the folder that holds saved_model.pb.
          handle: what the user called it.
          vocab: the WordPiece vocabulary of the encoder, a piece a line.
          seq_length: tokens in each row.
          lower_case: whether the vocabulary is uncased.
          **settings: `pooling`, `signature`, `output_key`, `allow_unsafe_deserialization`; see `SavedModelBackbone`.

        Raises:
          UserError: the folder is no such encoder, or the vocabulary none of WordPiece.
        """
        self._tokenize = WordPiece(vocab, lower_case, seq_length)
        self._vocab = vocab
        super().__init__(path, handle, **settings)
        if self.output_shape is not None and len(self.output_shape) == 3 and self.pooling in ("avg", "max"):
            self.output_shape = (self.output_shape[0], self.output_shape[2])

    def _caller(self, model: Any) -> Caller:
        return Caller.of(model, self.handle, self._signature, self._output_key, tokens=True)

    def digest(self) -> str:
        return joined_digest({"encoder": super().digest(), "vocabulary": file_digest(self._vocab)})

    def build(self, inputs: Any, mode: CallMode) -> BuiltBackbone:
        check_input(self.handle, inputs, self.input_spec)
        tokens = self._tokenize(inputs)
        self._mask = tf.cast(tokens["input_mask"], tf.float32)[:, :, tf.newaxis]
        return self._built(tokens, mode)

    def pool(self, features: Any) -> Any:
        """Pools a vector a token, [batch, tokens, depth], over the tokens that are there."""
        if features.shape.rank != 3 or self.pooling in ("flatten", "none"):
            return super().pool(features)
        if self.pooling == "max":
            return tf.reduce_max(tf.where(self._mask > 0, features, features.dtype.min), axis=1)
        return tf.reduce_sum(features * self._mask, axis=1) / tf.reduce_sum(self._mask, axis=1)
