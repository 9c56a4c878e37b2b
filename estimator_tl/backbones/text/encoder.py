"""Encoders of token ids, such as BERT, behind a tokenizer in the graph, so that they take raw strings."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from estimator_tl.backbones.base import BuiltBackbone
from estimator_tl.backbones.digest import file_digest, joined_digest
from estimator_tl.backbones.fetching.handles import Module, module_of, resolve
from estimator_tl.backbones.input.contract import check_input
from estimator_tl.backbones.saved_model.backbone import SavedModelBackbone
from estimator_tl.backbones.saved_model.caller import Caller
from estimator_tl.backbones.saved_model.interface import Interface
from estimator_tl.backbones.text.preprocessing import Preprocessing
from estimator_tl.backbones.text.wordpiece import WordPiece
from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError
from estimator_tl.structure import CallMode
from estimator_tl.tf_internals.graphs.placement import on_cpu
from estimator_tl.types import Tensor

_DEFAULT_LENGTH = 128  # tokens


class TextEncoderBackbone(SavedModelBackbone):
    """A SavedModel that takes ``input_word_ids``, ``input_mask`` and ``input_type_ids``, behind a tokenizer."""

    kind = "TF2 SavedModel of token ids"

    def __init__(
        self,
        path: str | Module,
        vocab: str | None = None,
        preprocess: str | None = None,
        seq_length: int | None = None,
        lower_case: bool = True,
        pooling: str = "avg",
        signature: str | None = None,
        output_key: str | None = None,
        features: str | Sequence[str] | None = None,
        allow_unsafe_deserialization: bool = False,
    ):
        """Reads the encoder and its tokenizer.

        Args:
          path: see `SavedModelBackbone`.
          vocab: the WordPiece vocabulary of the encoder, one piece a line.
          preprocess: instead of `vocab`, the preprocessing SavedModel of the encoder, as `path`.
          seq_length: tokens in each row; by default 128, or the length that the preprocessing model gives.
          lower_case: whether the vocabulary is uncased.
          pooling, signature, output_key, features: of the encoder; see `SavedModelBackbone`.
          allow_unsafe_deserialization: also load models that read or write files.

        Raises:
          UserError: the folder does not hold such an encoder, or the tokenizer does not match it.
        """
        module = module_of(path)
        if (vocab is None) == (preprocess is None):
            raise UserError(
                f"text_encoder({module.handle!r}) needs one tokenizer: vocab='vocab.txt', or preprocess='FOLDER' of "
                "its preprocessing SavedModel."
            )
        self._mask: Any = None
        self._tokenize: Preprocessing | WordPiece
        if preprocess is not None:
            self._tokenize = Preprocessing(resolve(preprocess), seq_length, allow_unsafe_deserialization)
            self._tokenizer = {"preprocessing": self._tokenize.digest}
        else:
            self._tokenize = WordPiece(str(vocab), lower_case, seq_length or _DEFAULT_LENGTH)
            self._tokenizer = {"vocabulary": functools.partial(file_digest, str(vocab))}
        super().__init__(module, None, None, pooling, signature, output_key, features, allow_unsafe_deserialization)

    def _caller(self, interface: Interface) -> Caller:
        caller = Caller.of(interface, self._signature, self._features, tokens=True)
        missing = sorted(caller.token_inputs - getattr(self._tokenize, "names", caller.token_inputs))
        if missing:
            raise UserError(
                f"the preprocessing of {SOURCE} gives no {', '.join(missing)}; use the encoder's preprocessing."
            )
        if caller.row_length not in (None, self._tokenize.length):
            raise UserError(
                f"{SOURCE} takes rows of {caller.row_length} tokens, the tokenizer gives {self._tokenize.length}; "
                f"set seq_length={caller.row_length}."
            )
        return caller

    def _full_shape(self, shape: Any) -> Any:
        """Returns the static shape of an output with the number of tokens, which the encoder may not know."""
        if not _lacks_length(shape):
            return shape
        return tf.TensorShape([shape[0], self._tokenize.length, shape[2]])

    def digest(self) -> str:
        tokenizer_digests = {name: digest() for name, digest in self._tokenizer.items()}
        return joined_digest({"encoder": super().digest(), **tokenizer_digests})

    def build(self, inputs: Tensor, mode: CallMode) -> BuiltBackbone:
        inputs = check_input(self.handle, inputs, self.input_spec)
        with on_cpu():
            tokens = self._tokenize(inputs)
        self._mask = tf.cast(tokens["input_mask"], tf.float32)[:, :, tf.newaxis]
        return self._build_on(tokens, mode)

    def _pool_one(self, features: Tensor) -> Any:
        if _lacks_length(features.shape):
            features = tf.ensure_shape(features, self._full_shape(features.shape))
        return super()._pool_one(features)

    def _reduced(self, features: Tensor) -> Any:
        """Pools [batch, tokens, depth] over the tokens of each text, without padding."""
        if features.shape.rank != 3:
            return super()._reduced(features)
        mask = self._mask
        if mask is None:  # before the first text, the caller needs only the shape
            mask = tf.ones_like(features[:, :, :1])
        if self.pooling == "max":
            return tf.reduce_max(tf.where(mask > 0, features, features.dtype.min), axis=1)
        return tf.reduce_sum(features * mask, axis=1) / tf.reduce_sum(mask, axis=1)


def _lacks_length(shape: Any) -> bool:
    return bool(shape.rank == 3 and shape[1] is None)
