"""What SavedModels, TF1 modules and networks with checkpoints do to images before their first weights."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.backbones.input.range import BYTES, UNIT, Finding, UnknownRangeError
from estimator_tl.compat import tf
from tests import networks, tiny, tiny_tf1
from tests.backbones import rescaling_modules as modules
from tests.backbones.rescaling_modules import Conditional, Module, SignatureOnly, Statistics, Switched, save


@pytest.mark.parametrize(
    ("make", "expected", "text"),
    [
        (lambda: Module(lambda m, x: x), UNIT, ""),
        (lambda: Module(lambda m, x: x / 255.0), BYTES, "x / 255 (truediv)"),
        (lambda: Module(lambda m, x: x / 127.5 - 1, deep=4), BYTES, "x / 127.5 - 1 (truediv, sub)"),
        (lambda: Module(lambda m, x: x * 2 - 1), UNIT, "x * 2 - 1 (mul, sub)"),
        (lambda: Module(lambda m, x: x[..., ::-1] - m.mean), BYTES, "x - [123.7, 116.8, 103.9] (sub)"),
        (lambda: Module(lambda m, x: tf.image.resize(x * 255.0, [5, 5]) - m.mean), UNIT, None),
        (
            lambda: Module(lambda m, x: tf.cond(tf.reduce_max(x) > 1, lambda: x / 255.0, lambda: x)),
            BYTES,
            "x / 255 (Max, Greater, cond)",
        ),
        (lambda: Module(lambda m, x: tf.cond(m.mean[0] > 1, lambda: x * 2 - 1, lambda: x)), UNIT, "x * 2 - 1 (cond)"),
        (lambda: Module(lambda m, x: tf.map_fn(lambda image: image / 255.0, x)), BYTES, None),
        (lambda: Module(lambda m, x: tf.cond(tf.shape(x)[0] > 9, lambda: x, lambda: x / 255.0)), BYTES, None),
        (lambda: Statistics(120, 60), BYTES, "x / 60 - 2 (sub, truediv)"),
        (lambda: Statistics(0.45, 0.25), UNIT, "x * 4 - 1.8 (sub, truediv)"),
        (Conditional, BYTES, "x / 255 (cond)"),
        (Switched, BYTES, "x / 255 (truediv)"),
        (SignatureOnly, BYTES, "x / 127.5 - 1 (truediv, sub)"),
    ],
)
def test_saved_models(make, expected, text, tmp_path):
    backbone = etl.backbone(save(make(), tmp_path / "model"), image_size=modules.SIZE)
    assert backbone.image_spec.range == expected
    if text is not None:
        assert backbone.finding == Finding(text, expected if text else None)


def test_the_range_that_is_said_wins(tmp_path):
    path = save(Module(lambda m, x: x / 255.0), tmp_path / "model")
    backbone = etl.backbone(path, input_range=(-1, 1))
    assert backbone.image_spec.range == (-1.0, 1.0)
    assert backbone.finding == Finding("x / 255 (truediv)", BYTES)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Module(lambda m, x: x * 3 + 7), "x * 3 + 7 (mul, add)"),
        (
            lambda: Module(lambda m, x: tf.image.per_image_standardization(x)),
            "arithmetic that is not a fixed scale and offset (per_image_standardization, reduce_variance, reduce_std)",
        ),
        (
            lambda: Conditional(lambda x: x * 2 - 1),
            "x / 255 and x * 2 - 1 in different branches (cond)",
        ),
        (lambda: Statistics(0.1, 0.9), "x * 1.111 - 0.1111 (sub, truediv)"),
    ],
)
def test_saved_models_from_which_no_range_follows(make, text, tmp_path):
    path = save(make(), tmp_path / "model")
    with pytest.raises(UnknownRangeError) as error:
        etl.backbone(path)
    assert str(error.value) == (
        f"{path} changes its input before its first weights, and no range of images follows from that: {text}; say "
        "which values it takes with --input_range, e.g. 0,255 or 0,1 or -1,1."
    )
    assert etl.backbone(path, input_range=(0, 255)).image_spec.range == BYTES


@pytest.mark.parametrize("resource", [True, False])
@pytest.mark.parametrize(
    ("rescale", "expected", "text"),
    [
        (lambda x: x * 2 - 1, UNIT, "x * 2 - 1 (mul, sub)"),
        (lambda x: x / 255.0, BYTES, "x / 255 (truediv)"),
        (lambda x: x, UNIT, ""),
    ],
)
def test_tf1_modules(rescale, expected, text, resource, tmp_path):
    tiny_tf1.save_tf1_module(tmp_path / "m", form=tiny_tf1.Form(resource=resource, rescale=rescale))
    backbone = etl.backbone(str(tmp_path / "m"))
    assert backbone.image_spec.range == expected
    assert backbone.finding == Finding(text, expected if text else None)


def test_a_tf1_module_from_which_no_range_follows(tmp_path):
    tiny_tf1.save_tf1_module(tmp_path / "m", form=tiny_tf1.Form(rescale=lambda x: x / 100.0))
    with pytest.raises(UnknownRangeError, match="follows from that: x / 100 \\(truediv\\); say which values"):
        etl.backbone(str(tmp_path / "m"))


def rescaling_network(inputs, training=False):
    return networks.v1_network(inputs / 127.5 - 1, training)


def odd_network(inputs, training=False):
    return networks.v1_network(inputs * 3 + 7, training)


def test_networks_with_checkpoints(tmp_path):
    values = networks.random_values(rescaling_network, tiny.SIZE, seed=5)
    path = networks.save_v1(tmp_path / "model.ckpt", values)

    def handle(name):
        return f"checkpoint({path!r}, network='tests.backbones.test_graph_range:{name}', image_size={tiny.SIZE})"

    backbone = etl.backbone(handle("rescaling_network"))
    assert backbone.image_spec.range == BYTES
    assert backbone.finding == Finding("x / 127.5 - 1 (truediv, sub)", BYTES)
    with pytest.raises(UnknownRangeError, match="x \\* 3 \\+ 7"):
        etl.backbone(handle("odd_network"))
    assert etl.backbone(handle("odd_network"), input_range=(0, 1)).image_spec.range == UNIT


def test_a_module_whose_graph_cannot_be_read_keeps_the_convention_of_hub(hub_module, monkeypatch):
    def fails(*args):
        raise KeyError("an operation of tomorrow")

    monkeypatch.setattr("estimator_tl.backbones.saved_model.interface.of_saved_function", fails)
    backbone = etl.backbone(hub_module.handle)
    assert backbone.image_spec.range == UNIT
    assert backbone.finding is None


def test_images_are_given_in_the_range(tmp_path):
    """The features of a rescaling model on bytes are those of the plain one on what it rescales to."""
    plain = etl.backbone(save(Module(lambda m, x: x), tmp_path / "plain"), input_range=(-1, 1))
    rescaled = etl.backbone(save(Module(lambda m, x: x / 127.5 - 1), tmp_path / "rescaled"))
    pixels = np.random.RandomState(0).randint(0, 256, (2, modules.SIZE, modules.SIZE, 3)).astype(np.float32)
    np.testing.assert_allclose(features(rescaled, pixels), features(plain, pixels), atol=1e-5)


def features(backbone, pixels):
    from estimator_tl.structure import CallMode

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        built = backbone.build(backbone.image_spec.preprocess(tf.constant(pixels)), CallMode())
        session.run(tf.compat.v1.global_variables_initializer())
        return session.run(built.features)
