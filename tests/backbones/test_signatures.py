"""SavedModels that are used through their signatures, or have several outputs."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from tests.backbones.named_features import features_of
from tests.backbones.signed_modules import PICTURES, Called, Signed
from tests.checkpoints import checkpoint_values
from tests.tiny import SIZE, random_batches
from tests.tiny_encoder import PIECES, save_encoder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("signed")
    for kind in (Signed, Called):
        model = kind()
        signatures = {"serving_default": model.serve, "embed": model.embed, "numbers": model.numbers}
        tf.saved_model.save(model, str(root / kind.__name__), signatures=signatures)
    return root


@pytest.mark.parametrize(
    ("kind", "arguments", "depth"),
    [
        ("Signed", {"output_key": "pooled"}, 4),
        ("Signed", {"output_key": "colours"}, 3),
        ("Signed", {"signature": "embed"}, 4),
        ("Called", {"output_key": "pooled"}, 4),
    ],
)
def test_features_are_those_of_the_named_output(folders, kind, arguments, depth):
    backbone = etl.backbone(str(folders / kind), **arguments)
    assert backbone.output_shape == (None, depth)
    model_fn = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3))
    images = np.random.RandomState(1).rand(2, SIZE, SIZE, 3).astype(np.float32)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        predicted = model_fn(tf.constant(images), None, "infer").predictions["features"]
        session.run(tf.compat.v1.global_variables_initializer())
        found = session.run(predicted)
    model = tf.saved_model.load(str(folders / kind))
    name = arguments.get("signature", "serving_default")
    outputs = model.signatures[name](pictures=tf.constant(images))
    np.testing.assert_allclose(found, outputs[arguments.get("output_key", "only")], rtol=1e-6)


def test_a_signature_is_fine_tuned(folders, tmp_path):
    backbone = etl.backbone(f"saved_model({str(folders / 'Signed')!r}, output_key='pooled')")
    assert [(v.name, v.trainable) for v in backbone.structure.variables] == [
        ("colours/kernel", True),
        ("colours/offset", False),
    ]
    model_fn = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3), etl.tuning.full())
    estimator.Estimator(model_fn, str(tmp_path), params={}).train(random_batches(SIZE), steps=2)
    before, after = (checkpoint_values(tmp_path / f"model.ckpt-{step}") for step in (0, 2))
    np.testing.assert_array_equal(before["colours/kernel"], Signed().kernel.numpy())
    assert not np.array_equal(before["colours/kernel"], after["colours/kernel"])
    np.testing.assert_array_equal(after["colours/offset"], Signed().offset.numpy())


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("Signed", {}, r"gives several outputs \(colours, pooled\); name one with output_key= or"),
        ("Signed", {"signature": "embd"}, "no signature 'embd'; did you mean 'embed'"),
        ("Signed", {"output_key": "poled"}, "no output 'poled'; did you mean 'pooled'"),
        ("Signed", {"signature": "numbers"}, "signature 'numbers' of .* takes neither a batch of images"),
    ],
)
def test_refuses(folders, kind, arguments, message):
    with pytest.raises(UserError, match=message):
        etl.backbone(str(folders / kind), **arguments)


def test_an_output_key_where_there_is_one_output(hub_module):
    with pytest.raises(UserError, match="gives one output without a name"):
        etl.backbone(hub_module.handle, output_key="default")


def test_without_the_usual_signature(tmp_path):
    model = Signed()
    tf.saved_model.save(model, str(tmp_path), signatures={"embed": model.embed})
    with pytest.raises(
        UserError, match=r"no signature 'serving_default', only \['embed'\]; name one with signature= or"
    ):
        etl.backbone(str(tmp_path))


class TakesDict(Signed):
    """Takes its pictures under a name."""

    @tf.function(input_signature=[{"pictures": PICTURES}])
    def __call__(self, inputs):
        return self.embed(inputs["pictures"])["only"]


def test_pictures_under_a_name(folders, tmp_path):
    tf.saved_model.save(TakesDict(), str(tmp_path))
    backbone = etl.backbone(str(tmp_path))
    assert backbone.image_spec.shape == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(
        features_of(backbone), features_of(etl.backbone(str(folders / "Signed"), signature="embed"))
    )


class WordsOnly(tf.Module):
    """An encoder without segments."""

    def __init__(self):
        super().__init__()
        self.vectors = tf.Variable(np.random.RandomState(0).randn(60, 4).astype("f"), name="vectors")

    @tf.function
    def __call__(self, inputs):
        mask = tf.cast(inputs["input_mask"], tf.float32)[:, :, tf.newaxis]
        return {"pooled_output": tf.reduce_sum(tf.gather(self.vectors, inputs["input_word_ids"]) * mask, axis=1)}


def test_an_encoder_without_segments(tmp_path):
    save_encoder(tmp_path)
    model = WordsOnly()
    given = {name: tf.TensorSpec([None, 8], tf.int32, name) for name in ("input_word_ids", "input_mask")}
    model.__call__.get_concrete_function(given)
    tf.saved_model.save(model, str(tmp_path / "two"))
    handle = f"text_encoder({str(tmp_path / 'two')!r}, vocab={str(tmp_path / 'vocab.txt')!r}, seq_length=8)"
    ids = [PIECES.index(piece) for piece in ("[CLS]", "the", "cat", "[SEP]")]
    expected = model.vectors.numpy()[ids].sum(0)
    np.testing.assert_allclose(features_of(etl.backbone(handle), ["the cat"])[0], expected, rtol=1e-5)
