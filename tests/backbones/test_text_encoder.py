"""Encoders of token ids with raw strings in: the tokens against the rules written plainly, and what trains."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.text.wordpiece import WordPiece
from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from tests.checkpoints import checkpoint_values
from tests.tiny_encoder import DEPTH, PIECES, save_encoder
from tests.tiny_text import write_table


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    return folder, save_encoder(folder)


def plainly(text, lower=True):
    """The pieces of a text by the rules of BERT, a character at a time."""
    cleaned = []
    for char in text:
        category = unicodedata.category(char)
        if category.startswith("Z") or char in "\t\n\r":
            cleaned.append(" ")
        elif char != "\0" and char != "\ufffd" and not category.startswith("C"):
            cleaned.append(f" {char} " if "\u4e00" <= char <= "\u9fff" else char)
    text = "".join(cleaned)
    if lower:
        text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    words = []
    for word in text.split():
        current = ""
        for char in word:
            ascii_sign = char.isascii() and not char.isalnum()
            if ascii_sign or unicodedata.category(char).startswith("P"):
                words += [current, char]
                current = ""
            else:
                current += char
        words.append(current)
    return [piece for word in words if word for piece in _pieces(word)]


def _pieces(word):
    found, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in PIECES:
                found.append(piece)
                start = end
                break
        else:
            return ["[UNK]"]
    return found if len(word) <= 100 else ["[UNK]"]


def in_a_graph(tokenizer, texts):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        given = tf.compat.v1.placeholder(tf.string, [None])
        tokens = tokenizer(given)
        assert all(value.shape.as_list() == [None, tokenizer.length] for value in tokens.values())
        session.run(tf.compat.v1.tables_initializer())
        return session.run(tokens, {given: [text.encode() for text in texts]})


def random_texts(seed, count=200):
    draw = random.Random(seed)
    parts = (
        [p.removeprefix("##") for p in PIECES[5:]]
        + list(" ,!.'\t\u00a0-")
        + ["Café", "ÉCÀ", "中中", "ß", "\u200b", "x" * 101]
    )
    return ["".join(draw.choice([*parts, " ", " "]) for _ in range(draw.randint(0, 9))) for _ in range(count)]


def test_pieces_are_those_of_the_plain_rules(encoder):
    folder, _ = encoder
    tokenizer = WordPiece(str(folder / "vocab.txt"), length=24)
    texts = ["unaffable cats!", "", "Cafés, dogs", "zzz a", "caf\u0065\u0301", "the中cat", *random_texts(1)]
    found = in_a_graph(tokenizer, texts)
    for row, mask, kinds, text in zip(*found.values(), texts):
        expected = ["[CLS]", *plainly(text)[:22], "[SEP]"]
        count = len(expected)
        assert [PIECES[number] for number in row[:count]] == expected, text
        assert not row[count:].any()
        assert mask.tolist() == [1] * count + [0] * (24 - count)
        assert not kinds.any()


def test_a_cased_vocabulary_keeps_its_case(encoder):
    folder, _ = encoder
    row = in_a_graph(WordPiece(str(folder / "vocab.txt"), lower_case=False, length=6), ["Cat cat"])["input_word_ids"][0]
    assert [PIECES[number] for number in row] == ["[CLS]", "[UNK]", "cat", "[SEP]", "[PAD]", "[PAD]"]


def test_only_line_ends_part_the_pieces_of_a_vocabulary(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2028", "\x85", "\x0c", "a", "##\u2028b", "c"]
    for end in ("\n", "\r\n"):
        (tmp_path / "vocab.txt").write_bytes("".join(f"{piece}{end}" for piece in pieces).encode("utf-8-sig"))
        tokenizer = WordPiece(str(tmp_path / "vocab.txt"), length=5)
        assert tokenizer.vocabulary == pieces
        assert in_a_graph(tokenizer, ["c a"])["input_word_ids"].tolist() == [[2, 9, 7, 3, 0]]


def handle_of(folder, **settings):
    given = "".join(f", {name}={value!r}" for name, value in settings.items())
    return f"text_encoder({str(folder / 'encoder')!r}, vocab={str(folder / 'vocab.txt')!r}{given})"


@pytest.mark.parametrize(
    ("settings", "shape"),
    [({}, (None, DEPTH)), ({"output_key": "sequence_output"}, (None, 128, DEPTH)), ({"seq_length": 9}, (None, DEPTH))],
)
def test_features_are_those_of_the_encoder_on_the_tokens(encoder, settings, shape):
    folder, _ = encoder
    backbone = etl.backbone(handle_of(folder, **settings))
    assert backbone.output_shape == shape
    assert backbone.input_spec.key == "text"
    texts = ["the cats and dogs", "unaffable!"]
    tokens = in_a_graph(WordPiece(str(folder / "vocab.txt"), length=settings.get("seq_length", 128)), texts)
    outputs = tf.saved_model.load(str(folder / "encoder"))(
        {k: tf.constant(v) for k, v in tokens.items()}, training=False
    )
    expected = outputs["pooled_output"].numpy()
    if settings.get("output_key"):
        mask = tokens["input_mask"][:, :, np.newaxis]
        expected = (outputs["sequence_output"].numpy() * mask).sum(1) / mask.sum(1)
    model_fn = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        features = model_fn(tf.constant(texts), None, "infer").predictions["features"]
        session.run([tf.compat.v1.global_variables_initializer(), tf.compat.v1.tables_initializer()])
        np.testing.assert_allclose(session.run(features), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.full
def test_from_a_table_to_an_export_of_raw_strings(encoder, tmp_path, capsys):
    folder, values = encoder
    table = write_table(tmp_path / "texts.csv")
    flags = {
        "backbone": handle_of(folder, seq_length=16),
        "train_data": table,
        "model_dir": tmp_path / "run",
        "tuning": "phases(phase(frozen, 10), phase(scopes('^pooler'), 30), full)",
        "train_steps": 60,
        "save_checkpoints_steps": 10,
        "keep_checkpoint_max": 0,
        "batch_size": 8,
        "learning_rate": 0.05,
    }
    assert main(["train", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    states = {step: checkpoint_values(tmp_path / "run" / f"model.ckpt-{step}") for step in (0, 10, 30, 60)}
    for name, value in values.items():
        np.testing.assert_array_equal(states[10][name], value)
    np.testing.assert_array_equal(states[30]["embeddings/word"], values["embeddings/word"])
    assert not np.array_equal(states[30]["pooler/kernel"], values["pooler/kernel"])
    assert not np.array_equal(states[60]["embeddings/word"], values["embeddings/word"])
    capsys.readouterr()
    assert main(["inspect", f"--model_dir={tmp_path / 'run'}"]) == 0
    assert capsys.readouterr().out.endswith("the checkpoints agree with the plan\n")
    assert main(["export", f"--model_dir={tmp_path / 'run'}", f"--export_dir={tmp_path / 'served'}"]) == 0
    served = tf.saved_model.load(capsys.readouterr().out.splitlines()[-1]).signatures["serving_default"]
    classes = served(text=tf.constant(["the fur and paw", "motor and brake"]))["classes"].numpy()[:, 0].tolist()
    assert classes == [b"pet", b"car"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab": "/nowhere/vocab.txt"}, "vocabulary '/nowhere/vocab.txt' does not exist"),
        ({"seq_length": 2}, "must be a whole number of at least 3"),
        ({"output_key": "pooled"}, "no output 'pooled'; did you mean 'pooled_output'"),
        ({"seq_len": 9}, "did you mean 'seq_length'"),
    ],
)
def test_refuses(encoder, settings, message):
    folder, _ = encoder
    text = handle_of(folder, **{k: v for k, v in settings.items() if k != "vocab"})
    if "vocab" in settings:
        text = f"text_encoder({str(folder / 'encoder')!r}, vocab={settings['vocab']!r})"
    with pytest.raises(UserError, match=message):
        etl.backbone(text)


def test_what_is_no_vocabulary_and_no_encoder(encoder, text_module, tmp_path):
    folder, _ = encoder
    (tmp_path / "words.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\]"):
        WordPiece(str(tmp_path / "words.txt"))
    with pytest.raises(UserError, match="does not take input_word_ids, with or without input_mask and input_type_ids"):
        etl.backbone(f"text_encoder({text_module.handle!r}, vocab={str(folder / 'vocab.txt')!r})")
    with pytest.raises(UserError, match=r"takes token ids; give it a tokenizer: text_encoder\("):
        etl.backbone(str(folder / "encoder"))
