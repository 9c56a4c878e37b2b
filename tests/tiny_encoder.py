"""An encoder of token ids, in Hub's format, that tests build for themselves, with its vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from estimator_tl.compat import tf
from tests.tiny_text import VOCABULARY

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *VOCABULARY,
    "un",
    "##aff",
    "##able",
    "##s",
    "caf",
    "##e",
    "##d",
]
PIECES += [",", "!", ".", "'", "中", *"bcdefghij", *(f"##{letter}" for letter in "abcfghij")]
DEPTH = 6


class Encoder(tf.Module):
    """Vectors of tokens, and a dense layer on the first: sequence_output and pooled_output as BERT's."""

    def __init__(self):
        super().__init__()
        draw = np.random.RandomState(0)
        self.embeddings = tf.Variable(draw.randn(len(PIECES), DEPTH).astype("f"), name="embeddings/word")
        self.kernel = tf.Variable(draw.randn(DEPTH, DEPTH).astype("f"), name="pooler/kernel")

    @tf.function
    def __call__(self, inputs, training=False):
        vectors = tf.gather(self.embeddings, inputs["input_word_ids"])
        if training:
            vectors = tf.nn.dropout(vectors, 0.1)
        mask = tf.cast(inputs["input_mask"], tf.float32)[:, :, tf.newaxis]
        context = tf.reduce_sum(vectors * mask, axis=1) / tf.reduce_sum(mask, axis=1)
        return {"sequence_output": vectors, "pooled_output": tf.tanh(tf.matmul(context, self.kernel))}


def save_encoder(folder: Path, length: int | None = None) -> dict[str, np.ndarray]:
    """Saves the encoder as folder/encoder and folder/vocab.txt; returns its values by name."""
    encoder = Encoder()
    names = ("input_word_ids", "input_mask", "input_type_ids")
    given = {name: tf.TensorSpec([None, length], tf.int32, name) for name in names}
    for training in (False, True):
        encoder.__call__.get_concrete_function(given, training=training)
    tf.saved_model.save(encoder, str(folder / "encoder"))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
    return {"embeddings/word": encoder.embeddings.numpy(), "pooler/kernel": encoder.kernel.numpy()}
