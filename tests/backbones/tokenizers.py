"""Tokenizers that are saved beside an encoder."""

from __future__ import annotations

from estimator_tl.compat import tf
from tests.tiny_encoder import PIECES

NAMES = ("input_word_ids", "input_mask", "input_type_ids")


class Words(tf.Module):
    """White-space tokens by number; longer rows are cut at `length`, shorter ones padded."""

    def __init__(self, length=6):
        super().__init__()
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(PIECES), tf.range(len(PIECES))), default_value=1
        )
        self.length = length

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(self, texts):
        words = tf.strings.split(texts)
        return words.with_values(self.table.lookup(words.flat_values))

    @tf.function(input_signature=[[tf.RaggedTensorSpec([None, None], tf.int32)], tf.TensorSpec([], tf.int32)])
    def pack(self, segments, seq_length):
        ids = segments[0]
        shape = [ids.nrows(tf.int32), seq_length]
        mask = tf.ones_like(ids).to_tensor(0, shape=shape)
        values = (ids.to_tensor(0, shape=shape), mask, tf.zeros_like(mask))
        return {name: tf.ensure_shape(value, [None, None]) for name, value in zip(NAMES, values)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        packed = self.pack([self.tokenize(texts)], self.length)
        return {name: tf.ensure_shape(value, [None, self.length]) for name, value in packed.items()}
