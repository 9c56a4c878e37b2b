"""A sentence encoder in Hub's format that tests build for themselves, and tables of labelled texts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from estimator_tl.compat import tf

WORDS = {
    "pet": ("cat", "dog", "fur", "paw", "tail"),
    "car": ("wheel", "motor", "road", "brake", "fuel"),
}
VOCABULARY = [word for words in WORDS.values() for word in words] + ["the", "a", "and", "is"]


class SentenceEncoder(tf.Module):
    """Averages the vectors of the words of a text; words that it does not know have one vector together."""

    def __init__(self, words, vectors):
        super().__init__()
        keys = tf.constant(words)
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(keys, tf.range(1, len(words) + 1)), default_value=0
        )
        unknown = np.zeros([1, vectors.shape[1]], np.float32)
        self.embeddings = tf.Variable(np.concatenate([unknown, vectors]), name="embeddings")
        self.variables_list = [self.embeddings]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        cleaned = tf.strings.regex_replace(tf.strings.lower(texts), r"[^a-z0-9' ]", " ")
        tokens = tf.strings.split(cleaned)
        ids = tokens.with_values(self.table.lookup(tokens.values))
        vectors = tf.gather(self.embeddings, ids.values)
        rows = ids.value_rowids()
        count = tf.maximum(tf.cast(ids.row_lengths(), tf.float32), 1.0)
        return tf.math.unsorted_segment_sum(vectors, rows, ids.nrows()) / count[:, tf.newaxis]


def save_sentence_encoder(path: Path, words=VOCABULARY, vectors=None) -> dict[str, np.ndarray]:
    """Saves an encoder in Hub's format, random where no vectors are given; returns its values by name."""
    if vectors is None:
        vectors = np.random.RandomState(0).randn(len(words), 6).astype(np.float32)
    module = SentenceEncoder(words, vectors)
    module.trainable_variables_of_hub = [module.embeddings]
    tf.saved_model.save(module, str(path))
    return {"embeddings": module.embeddings.numpy()}


def write_table(path: Path, rows: int = 60, delimiter: str = ",", header: bool = True, seed: int = 0) -> Path:
    """Writes a table with columns label and text, of sentences that their words tell apart."""
    draw = random.Random(seed)
    names = sorted(WORDS)
    lines = [delimiter.join(("label", "text"))] if header else []
    for number in range(rows):
        name = names[number % 2]
        words = [draw.choice(WORDS[name] + ("the", "a", "and", "is")) for _ in range(6)]
        lines.append(delimiter.join((name, f"{' '.join(words)} {number}")))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
