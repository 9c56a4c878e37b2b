"""`features=`: one or several endpoints of a source, pooled and joined, against the source called by itself."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from tests import networks, tiny_text, tiny_tf1
from tests.backbones.named_features import PICTURES, Endpoints, features_of
from tests.checkpoints import checkpoint_values
from tests.tiny import SIZE, random_batches


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory):
    module = Endpoints()
    for training in (False, True):
        for inner in (False, True):
            spec = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)
            module.__call__.get_concrete_function(spec, training=training, return_endpoints=inner)
    folder = tmp_path_factory.mktemp("hub") / "endpoints"
    tf.saved_model.save(module, str(folder))
    return str(folder)


@pytest.mark.parametrize(
    ("arguments", "used"),
    [
        ({}, ["default"]),
        ({"features": "first"}, ["first"]),
        ({"output_key": "first"}, ["first"]),
        ({"features": ["first", "default"]}, ["first", "default"]),
    ],
)
def test_endpoints_of_a_module(endpoints, arguments, used):
    backbone = etl.backbone(endpoints, **arguments)
    assert list(backbone.outputs) == ["default", "first"]
    outputs = tf.saved_model.load(endpoints)(tf.constant(PICTURES), return_endpoints=True)
    pooled = [tf.reduce_mean(outputs[name], [1, 2]) if name == "first" else outputs[name] for name in used]
    np.testing.assert_allclose(features_of(backbone), np.concatenate(pooled, axis=1), rtol=1e-5)


def test_what_an_endpoint_does_not_need_is_still_what_it_was(endpoints, tmp_path):
    backbone = etl.backbone(endpoints, features=["first"])
    model_fn = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3), etl.tuning.full())
    estimator.Estimator(model_fn, str(tmp_path), params={}).train(random_batches(SIZE), steps=2)
    before, after = (checkpoint_values(tmp_path / f"model.ckpt-{step}") for step in (0, 2))
    np.testing.assert_array_equal(before["first/kernel"], Endpoints().first.numpy())
    assert not np.array_equal(before["first/kernel"], after["first/kernel"])
    np.testing.assert_array_equal(after["second/kernel"], Endpoints().second.numpy())


def test_outputs_of_a_tf1_module(tf1_module):
    whole = etl.backbone(tf1_module.handle)
    assert list(whole.outputs) == ["default", "top/conv2"]
    both = etl.backbone(f"tf1_hub({tf1_module.handle!r}, features=['top/conv2', 'default'])")
    vector = features_of(whole)
    np.testing.assert_allclose(features_of(both), np.concatenate([vector, vector], axis=1), rtol=1e-5)
    maximum = etl.backbone(f"tf1_hub({tf1_module.handle!r}, features='top/conv2', pooling='max')")
    assert (features_of(maximum) >= vector).all()
    assert not np.allclose(features_of(maximum), vector)


def test_endpoints_of_a_network(tmp_path):
    values = networks.random_values(networks.v1_network, SIZE, seed=5)
    path = networks.save_v1(tmp_path / "m.ckpt", values)
    handle = f"checkpoint({path!r}, network='tests.networks:endpoints_network', image_size={SIZE}"
    pooled = features_of(etl.backbone(f"{handle}, features='pooled')"))
    both = etl.backbone(f"{handle}, features=['maps', 'pooled'])")
    assert both.output_shape == (None, 12)
    np.testing.assert_allclose(features_of(both), np.concatenate([pooled, pooled], axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": ["first", "defalt"]}, "no output 'defalt'; did you mean 'default'"),
        ({"features": ["first", "default"], "pooling": "none"}, r"shapes \(None, 8, 8, 4\), \(None, 5\).*use pooling"),
        ({"features": []}, "must be a name or a list of different names"),
        ({"features": ["first", "first"]}, "must be a name or a list of different names"),
        ({"features": "first", "output_key": "first"}, "both say what to use; give one of them"),
    ],
)
def test_refuses(endpoints, arguments, message):
    with pytest.raises(UserError, match=message):
        etl.backbone(endpoints, **arguments)


def test_outputs_and_signatures_on_the_command_line(tf1_module, endpoints, pictures, tmp_path, capsys):
    assert main(["inspect", f"--backbone={endpoints}"]) == 0
    assert "outputs        default, first\n" in capsys.readouterr().out
    flags = [f"--backbone={tf1_module.handle}", "--backbone_output_key=top/conv2", f"--train_data={pictures}"]
    flags += ["--backbone_signature=image_feature_vector", f"--model_dir={tmp_path}", "--batch_size=4"]
    assert main(["train", *flags, "--train_steps=2"]) == 0
    assert main(["inspect", f"--model_dir={tmp_path}"]) == 0
    assert "output         (None, 8, 8, 6), pooling avg\n" in capsys.readouterr().out
    assert main(["inspect", f"--backbone={tf1_module.handle}", "--backbone_signature=embed"]) == 2
    assert "'embed'" in capsys.readouterr().err


def test_a_tf1_module_of_sentences(tmp_path, capsys):
    """Strings, a vocabulary in an asset, and embeddings in two parts, as the text modules of TF1 Hub."""
    values = tiny_tf1.save_tf1_sentences(tmp_path / "module")
    backbone = etl.backbone(str(tmp_path / "module"))
    assert backbone.input_spec.key == "text"
    assert {v.name: v.shape for v in backbone.structure.variables} == {n: v.shape for n, v in values.items()}
    found = features_of(backbone, ["cat fur", "nothing known", "road"])
    table = np.concatenate(list(values.values()))
    word = {name: table[1 + number] for number, name in enumerate(tiny_text.VOCABULARY)}
    expected = [(word["cat"] + word["fur"]) / 2, table[0], word["road"]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(UserError, match="takes text, so image_size does not apply"):
        etl.backbone(str(tmp_path / "module"), image_size=8)

    texts = tiny_text.write_table(tmp_path / "texts.csv")
    flags = [
        f"--train_data={texts}",
        "--tuning=full",
        "--batch_size=8",
        "--learning_rate=0.05",
        "--keep_checkpoint_max=0",
        "--save_checkpoints_steps=40",
    ]
    run = tmp_path / "run"
    assert main(["train", f"--backbone={tmp_path / 'module'}", *flags, f"--model_dir={run}", "--train_steps=40"]) == 0
    before, after = (checkpoint_values(run / f"model.ckpt-{step}") for step in (0, 40))
    for name, value in values.items():
        np.testing.assert_array_equal(before[name], value)
        assert not np.array_equal(after[name], value)
    capsys.readouterr()
    assert main(["export", f"--model_dir={run}", f"--export_dir={tmp_path / 'served'}"]) == 0
    served = tf.saved_model.load(capsys.readouterr().out.splitlines()[-1]).signatures["serving_default"]
    classes = served(text=tf.constant(["the fur and paw", "motor and brake"]))["classes"].numpy()[:, 0].tolist()
    assert classes == [b"pet", b"car"]


def test_a_keras_model_has_no_signatures(keras_h5, application, keras_folder):
    for handle in (keras_h5.handle, application.handle):
        with pytest.raises(
            UserError, match="is a Keras model, which has layers and no output_key; leave --backbone_ou"
        ):
            etl.backbone(handle, output_key="default")
    signed = etl.backbone(keras_folder.handle, signature="serving_default")
    assert signed.kind == "TF2 SavedModel"
    np.testing.assert_allclose(features_of(signed), features_of(etl.backbone(keras_folder.handle)), rtol=1e-5)
