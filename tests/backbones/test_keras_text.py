"""Keras models that take texts, and split and look them up by themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import estimator, keras, tf
from estimator_tl.errors import UserError
from estimator_tl.structure import CallMode
from tests import tiny, tiny_text
from tests.backbones.keras_steps import in_full

LAYERS = keras.layers
TEXTS = np.array(["The CAT, a tail!", "wheel and road", "an unknown motor", "fur"])
WORDS = " ".join(tiny_text.VOCABULARY)


def vectorization(adapted=True, **arguments):
    if not adapted:
        return LAYERS.TextVectorization(vocabulary=tiny_text.VOCABULARY, **arguments)
    layer = LAYERS.TextVectorization(**arguments)
    layer.adapt([WORDS, "the cat and the dog", "a road"])
    return layer


def embedding(shape=(1,), adapted=True):
    """As Keras's tutorials write it."""
    inputs = keras.Input(shape, dtype="string", name="texts")
    net = vectorization(adapted, output_sequence_length=6)(inputs)
    net = LAYERS.Embedding(30, 5, mask_zero=True, name="embedding")(net)
    net = LAYERS.GlobalAveragePooling1D()(net)
    return keras.Model(inputs, LAYERS.Dense(3, name="top")(net))


def counted(mode):
    inputs = keras.Input((1,), dtype="string")
    net = vectorization(output_mode=mode)(inputs)
    return keras.Model(inputs, LAYERS.Dense(3, name="top")(net))


def exported():
    """A model of token ids behind what makes them, put together afterwards."""
    inner = keras.Sequential([LAYERS.Embedding(30, 5), LAYERS.Bidirectional(LAYERS.LSTM(2)), LAYERS.Dense(3)])
    model = keras.Sequential([vectorization(output_sequence_length=6), inner])
    model(tf.constant(TEXTS))
    return model


MODELS = {
    "embedding": embedding,
    "without axis": lambda: embedding(()),
    "given words": lambda: embedding(adapted=False),
    "counts": lambda: counted("count"),
    "frequencies": lambda: counted("tf_idf"),
    "exported": exported,
}


def save(kind, path):
    """Saves a model; returns its path and the features of `TEXTS`."""
    model = MODELS[kind]()
    expected = model(TEXTS[:, np.newaxis] if len(model.input_shape) == 2 else TEXTS).numpy()
    model.save(str(path), **({} if path.suffix else {"save_format": "tf"}))
    return str(path), expected


def built(backbone):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = backbone.build(tf.constant(TEXTS), CallMode())
        session.run([tf.compat.v1.global_variables_initializer(), tf.compat.v1.tables_initializer()])
        for name, value in graph.initial_values().items():
            graph.variables[name].load(value, session)
        return session.run(graph.features), sorted(v.op.name for v in tf.compat.v1.global_variables())


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("suffix", [".keras", *in_full("")])
def test_features_are_those_of_the_model(kind, suffix, tmp_path):
    path, expected = save(kind, tmp_path / f"text{suffix}")
    backbone = etl.backbone(path)
    assert (backbone.kind, backbone.input_spec.key) == ("Keras model", "text")
    features, variables = built(backbone)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    assert variables == sorted(variable.name for variable in backbone.structure.variables)


def test_hdf5_holds_words_that_were_given(tmp_path):
    path, expected = save("given words", tmp_path / "text.h5")
    np.testing.assert_allclose(built(etl.backbone(path))[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("suffix", "steps"),
    [(".keras", (20,)), pytest.param("", (10, 20), marks=pytest.mark.full, id="folder, gone on with")],
)
def test_from_training_to_the_export(suffix, steps, tmp_path, capsys):
    path, _ = save("embedding", tmp_path / f"text{suffix}")
    table, run = tiny_text.write_table(tmp_path / "table.csv"), tmp_path / "run"
    flags = [f"--train_data=csv({str(table)!r}, text='text', label='label')", f"--model_dir={run}", "--batch_size=8"]
    more = ["--tuning=full", "--optimizer=adam(0.05)"]
    for last in steps:
        assert main(["train", f"--backbone={path}", *flags, *more, f"--train_steps={last}"]) == 0
    capsys.readouterr()
    assert main(["evaluate", f"--model_dir={run}"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"] == 1.0
    assert main(["inspect", f"--model_dir={run}"]) == 0
    assert capsys.readouterr().out.endswith("the checkpoints agree with the plan\n")
    assert main(["export", f"--model_dir={run}"]) == 0
    folder = capsys.readouterr().out.splitlines()[-1]
    served = tf.saved_model.load(folder).signatures["serving_default"]
    names = served(text=tf.constant(["cat fur paw", "wheel motor road"]))["classes"].numpy()[:, 0]
    assert [name.decode() for name in names] == ["pet", "car"]


def test_in_several_replicas(tmp_path):
    path, _ = save("embedding", tmp_path / "text.keras")
    config = estimator.RunConfig(
        tf_random_seed=1,
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )
    head, optimizer = etl.heads.classifier(n_classes=3), etl.optimizers.sgd(0.1)
    model_fn = etl.make_model_fn(etl.backbone(path), head, etl.tuning.full(), optimizer, show_plan=lambda text: None)
    model = estimator.Estimator(model_fn, str(tmp_path / "run"), config, params={})
    model.train(tiny.random_batches(0), steps=1)
    assert model.evaluate(tiny.random_batches(0), steps=1)["global_step"] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_size": 8}, "takes text, so image_size does not apply; leave it out."),
        ({"input_range": (0, 1)}, "takes text, so input_range does not apply; leave it out."),
    ],
)
def test_settings_of_images_are_refused(given, message, tmp_path):
    path, _ = save("embedding", tmp_path / "text.keras")
    with pytest.raises(UserError) as error:
        etl.backbone(path, **given)
    assert str(error.value) == f"{path} {message}"


def test_several_texts_at_once_are_refused(tmp_path):
    inputs = keras.Input((2,), dtype="string")
    ids = LAYERS.StringLookup(vocabulary=["a"])(inputs)
    keras.Model(inputs, LAYERS.Dense(2)(LAYERS.Flatten()(LAYERS.Embedding(3, 2)(ids)))).save(
        str(tmp_path / "two.keras")
    )
    with pytest.raises(UserError) as error:
        etl.backbone(str(tmp_path / "two.keras"))
    assert str(error.value) == (
        f"{tmp_path / 'two.keras'} takes strings of shape (None, 2); use a model that takes one text, (None, 1)."
    )
