"""WordPiece tokenization of raw strings inside the graph, so that exports take raw strings too.

It follows the rules of BERT (Devlin et al. 2019; the tokenizer of its published code). Text is cleaned and split at
white space and punctuation; for an uncased vocabulary it is lower-cased and stripped of accents. Each word is cut
greedily into the longest pieces of the vocabulary, from its beginning.
"""

from __future__ import annotations

import os
import unicodedata
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.types import Tensor

_PAD, _UNKNOWN, _BEGIN, _END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
_LONGEST_WORD = 100  # characters; longer words are unknown, as in BERT
_CONTROL = r"[\x{0}\x{FFFD}]|[^\P{C}\t\n\r]"
# Each Chinese character counts as a word; the Unicode blocks are the same as in BERT.
_IDEOGRAPHS = (
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}"
    r"\x{2B820}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}]"
)
_PUNCTUATION = r"[!-/:-@\[-`{-~]|\p{P}"


class WordPiece:
    """Cuts text into the pieces of a vocabulary.

    Attributes:
      vocabulary: the pieces in the order of their numbers.
      lower_case: whether the vocabulary is uncased.
      length: tokens in each row, with the tokens that begin and end it.
    """

    def __init__(self, path: str, lower_case: bool = True, length: int = 128):
        """Reads a vocabulary.

        Args:
          path: a ``vocab.txt``, one piece a line.
          lower_case: whether the vocabulary is uncased.
          length: tokens in each row; longer texts are cut, shorter ones padded.

        Raises:
          UserError: there is no such file, or it is not a WordPiece vocabulary.
        """
        if not os.path.isfile(path):
            raise UserError(f"vocabulary {path!r} does not exist; give the vocab.txt of the encoder.")
        try:
            with open(path, encoding="utf-8-sig") as stream:
                self.vocabulary = [line.rstrip("\n") for line in stream]
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} is not a vocabulary: {error}; give a UTF-8 file with one piece per line."
            ) from error
        missing = [token for token in (_PAD, _UNKNOWN, _BEGIN, _END) if token not in self.vocabulary]
        if missing:
            raise UserError(f"{path} is not a WordPiece vocabulary: it lacks {', '.join(missing)}; give a vocab.txt.")
        if len(set(self.vocabulary)) < len(self.vocabulary):
            raise UserError(f"{path} is not a WordPiece vocabulary: it names a piece twice; give a vocab.txt.")
        if not isinstance(length, int) or length < 3:
            raise UserError(f"seq_length={length!r} must be a whole number of at least 3 tokens, e.g. 128.")
        self.lower_case = lower_case
        self.length = length
        self._longest_piece = max(len(piece.removeprefix("##")) for piece in self.vocabulary)

    def __call__(self, texts: Tensor) -> dict[str, Any]:
        """Returns the int32 [batch, length] inputs of a BERT encoder for strings [batch]."""
        table = self._table()
        words = tf.strings.split(self._cleaned(texts))
        pieces = self._pieces(table, words.flat_values)
        rows = words.with_values(pieces).merge_dims(1, 2)[:, : self.length - 2]
        number = self.vocabulary.index
        count = rows.nrows()
        ids = tf.concat([tf.fill([count, 1], number(_BEGIN)), rows, tf.fill([count, 1], number(_END))], axis=1)
        shape = [None, self.length]
        mask = tf.ones_like(ids).to_tensor(0, shape=shape)
        return {
            "input_word_ids": ids.to_tensor(number(_PAD), shape=shape),
            "input_mask": mask,
            "input_type_ids": tf.zeros_like(mask),
        }

    def _table(self) -> Any:
        numbers = tf.range(len(self.vocabulary), dtype=tf.int32)
        initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(self.vocabulary), numbers)
        return tf.lookup.StaticHashTable(initializer, default_value=-1)

    def _cleaned(self, texts: Tensor) -> Any:
        texts = tf.strings.regex_replace(texts, _CONTROL, "")
        texts = tf.strings.regex_replace(texts, _IDEOGRAPHS, r" \0 ")
        if self.lower_case:
            texts = tf.strings.lower(texts, encoding="utf-8")
            for plain, accented in _accents().items():
                texts = tf.strings.regex_replace(texts, f"[{accented}]", plain)
            texts = tf.strings.regex_replace(texts, r"\p{Mn}", "")
        texts = tf.strings.regex_replace(texts, r"\p{Z}", " ")
        return tf.strings.regex_replace(texts, _PUNCTUATION, r" \0 ")

    def _pieces(self, table: Any, words: Tensor) -> Any:
        """Returns the numbers of each word's pieces, int32 ragged [words, pieces]."""
        unknown = self.vocabulary.index(_UNKNOWN)
        lengths = tf.range(1, self._longest_piece + 1)
        count = tf.shape(words)[0]
        too_long = tf.strings.length(words, "UTF8_CHAR") > _LONGEST_WORD

        def longest(rest: Any, first: Any) -> tuple[Any, Any]:
            """Returns number and length of the longest piece at the start of each rest; -1 and 0 without a piece."""
            sizes = tf.minimum(lengths[tf.newaxis], tf.strings.length(rest, "UTF8_CHAR")[:, tf.newaxis])
            repeated = tf.tile(rest[:, tf.newaxis], [1, self._longest_piece])
            heads = tf.strings.substr(repeated, tf.zeros_like(sizes), sizes, unit="UTF8_CHAR")
            numbers = table.lookup(tf.where(first, heads, tf.strings.join(["##", heads])))
            sizes = tf.where((numbers >= 0) & (sizes > 0), sizes, 0)
            best = tf.argmax(sizes, axis=1, output_type=tf.int32)
            return tf.gather(numbers, best, batch_dims=1), tf.gather(sizes, best, batch_dims=1)

        def cut(step: Any, rest: Any, bad: Any, pieces: Any) -> tuple[Any, Any, Any, Any]:
            open_ = tf.not_equal(rest, "") & ~bad  # `!=` compares objects in a graph
            number, size = longest(rest, tf.equal(step, 0))
            bad |= open_ & tf.equal(size, 0)
            pieces = pieces.write(step, tf.where(open_ & (size > 0), number, -1))
            rest = tf.where(bad, tf.fill([count], ""), rest)
            whole = tf.strings.length(rest, "UTF8_CHAR")
            return step + 1, tf.strings.substr(rest, tf.minimum(size, whole), whole, unit="UTF8_CHAR"), bad, pieces

        rows = tf.TensorArray(tf.int32, 0, dynamic_size=True, clear_after_read=False, element_shape=[None])

        def unfinished(step: Any, rest: Any, bad: Any, pieces: Any) -> Any:
            del pieces
            return tf.equal(step, 0) | tf.reduce_any(tf.not_equal(rest, "") & ~bad)  # one step at least

        _, _, bad, rows = tf.while_loop(unfinished, cut, (0, words, too_long, rows))
        numbers = tf.where(bad[:, tf.newaxis], -1, tf.transpose(rows.stack()))
        numbers = tf.concat([tf.where(bad, unknown, -1)[:, tf.newaxis], numbers], axis=1)
        return tf.ragged.boolean_mask(numbers, numbers >= 0)


def _accents() -> dict[str, str]:
    """Returns all lower-case letters with accents, by the plain letter."""
    accents: dict[str, str] = {}
    for code in (*range(0xC0, 0x600), *range(0x1E00, 0x2000)):
        letter = chr(code)
        plain = "".join(c for c in unicodedata.normalize("NFD", letter) if unicodedata.category(c) != "Mn")
        if plain != letter and len(plain) == 1 and letter == letter.lower():
            accents[plain] = accents.get(plain, "") + letter
    return accents
