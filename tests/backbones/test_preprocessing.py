"""Preprocessing SavedModels in front of token encoders, those with operations of tensorflow-text included."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.tf_internals.graphs import text_ops
from tests.backbones.named_features import features_of
from tests.backbones.tokenizers import Words
from tests.checkpoints import checkpoint_values
from tests.tiny_encoder import PIECES, Encoder, save_encoder
from tests.tiny_text import write_table

TEXTS = ["the cat and fur", "motor"]


class Packing(Words):
    """The same with what lets others choose the length."""

    def __init__(self):
        super().__init__()
        self.bert_pack_inputs = self.pack


class Lengths(tf.Module):
    """Gives no tokens."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        return tf.strings.length(texts)


class Unmasked(Words):
    """Lacks one of the inputs of an encoder."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        ids = self.tokenize(texts).to_tensor(0, shape=[None, 6])
        return {"input_word_ids": ids, "input_type_ids": tf.zeros_like(ids)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    save_encoder(root)
    for kind in (Words, Packing, Lengths, Unmasked):
        tf.saved_model.save(kind(), str(root / kind.__name__))
    return root


def handle(root, name="Words", **settings):
    given = "".join(f", {key}={value!r}" for key, value in settings.items())
    return f"text_encoder({str(root / 'encoder')!r}, preprocess={str(root / name)!r}{given})"


def expected(tokens):
    return Encoder()({name: tf.constant(value, tf.int32) for name, value in tokens.items()})["pooled_output"].numpy()


@pytest.mark.parametrize(("name", "settings", "length"), [("Words", {}, 6), ("Packing", {"seq_length": 3}, 3)])
def test_features_are_those_of_the_encoder_on_its_tokens(folders, name, settings, length):
    rows = [[PIECES.index(word) for word in text.split()][:length] for text in TEXTS]
    ids = np.array([row + [0] * (length - len(row)) for row in rows])
    tokens = {"input_word_ids": ids, "input_mask": ids > 0, "input_type_ids": 0 * ids}
    backbone = etl.backbone(handle(folders, name, **settings))
    np.testing.assert_allclose(features_of(backbone, TEXTS), expected(tokens), rtol=1e-5)
    assert backbone.digest() != etl.backbone(handle(folders, "Packing" if name == "Words" else "Words")).digest()


def test_a_list_of_outputs_is_pooled_over_the_tokens_that_are_there(folders):
    both = features_of(etl.backbone(handle(folders, features=["sequence_output", "pooled_output"])), TEXTS)
    words = [[PIECES.index(word) for word in text.split()] for text in TEXTS]
    means = np.stack([Encoder().embeddings.numpy()[row].mean(0) for row in words])
    np.testing.assert_allclose(both[:, : means.shape[1]], means, rtol=1e-5)
    np.testing.assert_allclose(both[:, means.shape[1] :], features_of(etl.backbone(handle(folders)), TEXTS), rtol=1e-5)


def test_from_a_table_to_an_export_of_raw_strings(folders, tmp_path, capsys):
    table = write_table(tmp_path / "texts.csv")
    run = tmp_path / "run"
    flags = [f"--train_data={table}", "--batch_size=8", "--learning_rate=0.05", "--keep_checkpoint_max=0"]
    flags += [f"--backbone={handle(folders)}", f"--model_dir={run}", "--tuning=full"]
    assert main(["train", *flags, "--train_steps=60", "--save_checkpoints_steps=60"]) == 0
    before, after = (checkpoint_values(run / f"model.ckpt-{step}") for step in (0, 60))
    np.testing.assert_array_equal(before["pooler/kernel"], Encoder().kernel.numpy())
    np.testing.assert_array_equal(before["embeddings/word"], Encoder().embeddings.numpy())
    assert not np.array_equal(after["pooler/kernel"], before["pooler/kernel"])
    capsys.readouterr()
    assert main(["export", f"--model_dir={run}", f"--export_dir={tmp_path / 'served'}"]) == 0
    served = tf.saved_model.load(capsys.readouterr().out.splitlines()[-1]).signatures["serving_default"]
    classes = (
        served(text=tf.constant(["the fur and paw", "motor and brake road fuel"]))["classes"].numpy()[:, 0].tolist()
    )
    assert classes == [b"pet", b"car"]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Words", {"seq_length": 9}, "gives rows of 6 tokens, not of seq_length=9; leave seq_length out"),
        ("Words", {"vocab": "vocab.txt"}, "needs one tokenizer: vocab='vocab.txt', or preprocess='FOLDER'"),
        ("Lengths", {}, "is not a preprocessing model for text: it does not give a dict of tensors"),
        ("Unmasked", {}, "gives no input_mask"),
        ("encoder", {}, "is not a preprocessing model for text: it cannot be called with a batch of strings"),
        ("nowhere", {}, "no such file or folder"),
    ],
)
def test_refuses(folders, name, settings, message):
    with pytest.raises(UserError, match=message):
        etl.backbone(handle(folders, name, **settings))


def test_an_encoder_of_fixed_length(folders, tmp_path):
    save_encoder(tmp_path, length=4)
    (tmp_path / "Packing").symlink_to(folders / "Packing")
    with pytest.raises(UserError, match="takes rows of 4 tokens, the tokenizer gives 6; set seq_length=4"):
        etl.backbone(handle(tmp_path, "Packing"))
    assert features_of(etl.backbone(handle(tmp_path, "Packing", seq_length=4)), TEXTS).shape == (2, 6)


SAVE_SPLITTER = """
import sys
from estimator_tl.compat import tf
from tests.backbones.tokenizers import PIECES, Words
text = tf.load_op_library(sys.argv[1])

class Splitter(Words):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        words, begin, end, rows = text.regex_split_with_offsets(texts, "([ ,]+)", "")
        words = tf.RaggedTensor.from_row_splits(words, rows)
        packed = self.pack([words.with_values(self.table.lookup(words.flat_values))], self.length)
        return {name: tf.ensure_shape(value, [None, self.length]) for name, value in packed.items()}

tf.saved_model.save(Splitter(), sys.argv[2])
"""


@pytest.fixture
def splitter(folders):
    """A preprocessing model that another process saved, with an operation that TensorFlow itself lacks."""
    found = importlib.util.find_spec("tensorflow_text")
    if found is None:
        pytest.skip("tensorflow-text is not installed; pip install 'estimator_tl[text]'")
    library = os.path.join(os.path.dirname(found.origin), "python", "ops", "_regex_split_ops.so")
    target = folders / "Splitter"
    if not target.exists():
        subprocess.run([sys.executable, "-c", SAVE_SPLITTER, library, str(target)], check=True, timeout=300)
    return target


def test_operations_of_tensorflow_text_are_found(folders, splitter, monkeypatch):
    monkeypatch.setattr(text_ops, "load_text_operations", lambda: False)
    with pytest.raises(UserError, match=r"needs the operation RegexSplitWithOffsets.*pip install 'tensorflow-text=="):
        etl.backbone(handle(folders, splitter.name))
    monkeypatch.undo()
    backbone = etl.backbone(handle(folders, splitter.name))
    plain = etl.backbone(handle(folders))
    np.testing.assert_array_equal(features_of(backbone, ["the,cat, and fur"]), features_of(plain, TEXTS[:1]))
