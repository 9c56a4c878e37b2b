"""The recipes with text, as commands and as programs: both train what they say, and the same."""

from __future__ import annotations

import re
import shlex
import types

import pytest

import estimator_tl as etl
from estimator_tl.backbones.fetching import module_cache
from estimator_tl.compat import tf
from tests.backbones.tokenizers import Words
from tests.recipes.running import blocks, check, replaced, run_both, section
from tests.tiny_encoder import DEPTH, save_encoder
from tests.tiny_text import write_table

NNLM = "https://tfhub.dev/google/nnlm-en-dim128/2"
BERT = "https://tfhub.dev/tensorflow/bert_en_uncased_L-12_H-768_A-12/4"
PREPROCESS = "https://tfhub.dev/tensorflow/bert_en_uncased_preprocess/3"
UNIVERSAL = "https://tfhub.dev/google/universal-sentence-encoder/4"
BERT_TITLE = "BERT, frozen and then all of it"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    return str(write_table(tmp_path_factory.mktemp("table") / "texts.csv"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """An encoder of token ids with its preprocessing model."""
    folder = tmp_path_factory.mktemp("bert")
    values = save_encoder(folder)
    tf.saved_model.save(Words(), str(folder / "preprocess"))
    return types.SimpleNamespace(folder=folder, values=values)


def test_a_head_on_sentences(text_module, reviews, tmp_path):
    stand_ins = {NNLM: text_module.handle, "reviews.csv": reviews, "steps=1000": "steps=2"}
    runs = run_both("A head on sentence embeddings", stand_ins, tmp_path, every=2)
    check(runs, text_module, [(0, 2, 1e-3, set())])


@pytest.mark.full
def test_bert(bert, reviews, tmp_path):
    modules = {BERT: str(bert.folder / "encoder"), PREPROCESS: str(bert.folder / "preprocess")}
    steps = {"full(500,": "full(2,", "steps=2000": "steps=4"}
    runs = run_both(BERT_TITLE, {**modules, "reviews.csv": reviews, **steps}, tmp_path, every=2)
    check(runs, bert, [(0, 2, 1e-3, set()), (2, 4, 2e-5, set(bert.values))], units=128)
    assert runs[0].head().dropout == 0.5


def test_bert_by_its_addresses(bert, tmp_path, monkeypatch):
    """The handles of the command and the program as they stand, where the modules are in Hub's cache."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    for address, name in ((BERT, "encoder"), (PREPROCESS, "preprocess")):
        (tmp_path / module_cache.key_of(address)).symlink_to(bert.folder / name)
    command, program = blocks(BERT_TITLE)
    (given,) = [flag for flag in shlex.split(command.replace("\\\n", "")) if flag.startswith("--backbone=")]
    made = {}
    exec(program.partition("data =")[0], made)
    assert made["backbone"].digest() == etl.backbone(given.removeprefix("--backbone=")).digest()


def test_encoders_in_place_of_bert(bert, text_module):
    handles = re.findall(r"^\| .* \| `\"?(.*?)\"?` \|$", section(BERT_TITLE), re.MULTILINE)
    assert handles[0] == "--backbone="
    local = {"'bert'": repr(str(bert.folder / "encoder")), "bert/assets/vocab.txt": str(bert.folder / "vocab.txt")}
    wordpiece, universal = replaced(handles[1], local), replaced(handles[2], {UNIVERSAL: text_module.handle})
    for handle, values in ((wordpiece, bert.values), (universal, text_module.values)):
        backbone = etl.backbone(handle)
        assert backbone.input_spec.what == "text"
        assert backbone.output_shape[-1] == DEPTH
        assert set(etl.tuning.full().select(backbone.structure)) == set(values)
