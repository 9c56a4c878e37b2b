"""Keras models that were compiled, or have losses and metrics of their own: none of that is a part of the network."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, keras, tf
from estimator_tl.errors import UserError
from tests import tiny
from tests.backbones.building import IMAGES, build
from tests.backbones.keras_steps import in_full
from tests.backbones.subclassed import Subclassed

LAYERS = keras.layers
NETWORK = ["conv/bias", "conv/kernel", "norm/beta", "norm/gamma", "norm/moving_mean", "norm/moving_variance"]
RUN = ["global_step", "head/logits/bias", "head/logits/kernel"]


class OwnMetric(keras.metrics.MeanAbsoluteError):
    """A metric that nobody else has."""


class OwnLoss(keras.losses.Loss):
    """A loss that nobody else has."""

    def call(self, truth, given):
        return tf.reduce_mean(tf.square(truth - given))


class OwnOptimizer(keras.optimizers.SGD):
    """An optimizer that nobody else has."""


class WithLoss(LAYERS.Layer):
    """A layer that adds a loss and a metric."""

    def call(self, inputs):
        self.add_loss(tf.reduce_mean(inputs))
        self.add_metric(tf.reduce_mean(inputs), name="mean", aggregation="mean")
        return inputs


class Plain(LAYERS.Layer):
    """A layer that nobody else has."""

    def call(self, inputs):
        return inputs


def layered(added=False, own=None):
    inputs = keras.Input((8, 8, 3), name="images")
    net = LAYERS.BatchNormalization(name="norm")(LAYERS.Conv2D(3, 3, name="conv")(inputs))
    net = own(name="own")(net) if own else net
    model = keras.Model(inputs, LAYERS.Dense(2, name="top")(LAYERS.GlobalAveragePooling2D(name="pool")(net)))
    if added:
        model.add_loss(tf.reduce_mean(model.output))
        model.add_metric(tf.reduce_sum(model.output), name="sum", aggregation="mean")
    return model


def compiled(model):
    model.compile(OwnOptimizer(0.0), OwnLoss(), metrics=["mae", keras.metrics.MeanSquaredError(), OwnMetric()])
    model.fit(IMAGES, np.zeros(model(IMAGES).shape), verbose=0)
    tiny.randomize(model, 3)
    return model


def run(backbone, model_dir):
    """Trains, evaluates and predicts by input_fns of different ops; returns the names in the checkpoint."""
    head = etl.heads.classifier(n_classes=3)
    optimizer = etl.optimizers.sgd(0.1)
    model_fn = etl.make_model_fn(backbone, head, etl.tuning.full(), optimizer, show_plan=lambda text: None)
    model = estimator.Estimator(model_fn, str(model_dir), estimator.RunConfig(tf_random_seed=1), params={})
    model.train(tiny.random_batches(8), steps=1)  # its repeat() has an op called count, as metrics have variables
    model.evaluate(lambda: ({"image": tf.constant(IMAGES)}, tf.constant([0, 1])), steps=1)
    assert len(list(model.predict(lambda: tf.data.Dataset.from_tensors({"image": IMAGES})))) == 2
    return sorted(name for name, _ in tf.train.list_variables(str(model_dir)))


def saved(model, path):
    model.save(str(path), **({} if path.suffix else {"save_format": "tf"}))
    return str(path)


@pytest.mark.parametrize("name", ["compiled", *in_full("compiled.h5", "compiled.keras")])
@pytest.mark.parametrize("added", [*in_full(False), True])
def test_compiled_models_are_their_layers(name, added, tmp_path):
    model = compiled(layered(added))
    expected = keras.Model(model.inputs, model.get_layer("pool").output)(IMAGES).numpy()
    handle = f"keras_model({saved(model, tmp_path / name)!r}, drop_top=1)"
    backbone = etl.backbone(handle)
    assert backbone.structure.layers == ("images", "conv", "norm", "pool")
    note = "losses and metrics that were added to the model itself (add_loss, add_metric) are left out"
    assert backbone.structure.notes == ((note,) if added else ())
    assert run(backbone, tmp_path / "run") == sorted(NETWORK + RUN)
    np.testing.assert_allclose(build(backbone, IMAGES)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", in_full("own", "own.h5", "own.keras"))
def test_losses_of_layers_are_no_part_of_the_run(name, tmp_path):
    path = saved(layered(own=WithLoss), tmp_path / name)
    backbone = etl.backbone(f"keras_model({path!r}, drop_top=1)", custom_objects={"WithLoss": WithLoss})
    assert run(backbone, tmp_path / "run") == sorted(NETWORK + RUN)


def test_metrics_of_a_subclassed_model_are_in_no_checkpoint(tmp_path):
    path = saved(compiled(Subclassed()), tmp_path / "subclassed")
    names = run(etl.backbone(path), tmp_path / "run")
    assert sorted(name.partition("/")[2] or name for name in names) == sorted(
        [*NETWORK, "global_step", "logits/bias", "logits/kernel"]
    )


def test_a_folder_whose_layers_are_not_to_be_had_says_so(tmp_path):
    need = "{} needs {}, which Keras does not have; say where the code is with custom_objects='pkg.mod:{}' or "
    need += "'path/file.py:{}'"
    path = saved(layered(own=Plain), tmp_path / "own")
    why = need.format(path, *["Plain"] * 3)
    assert etl.backbone(path).structure.notes == (f"a SavedModel without its Keras layers, as {why}",)
    path = saved(layered(own=WithLoss), tmp_path / "writes")  # without its code its call would write to the metric
    with pytest.raises(UserError) as refused:
        etl.backbone(path)
    assert str(refused.value) == f"{need.format(path, *['WithLoss'] * 3)}."
