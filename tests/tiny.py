"""Tiny backbones and picture folders that the tests build for themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from estimator_tl.compat import keras, tf
from tests import tiny_text

SIZE = 8
DEPTH = 6


class TinyModule(tf.Module):
    """A hub-format module: two convolutions with batch norm on 8x8 RGB pictures in [0, 1], pooled."""

    def __init__(self, seed: int = 0, statistics: bool = True):
        super().__init__()
        rng = np.random.RandomState(seed)
        self._weights = {}
        self._moving = {}
        for scope, shape in (("stem/conv1", (3, 3, 3, 4)), ("top/conv2", (3, 3, 4, DEPTH))):
            out = shape[-1]
            self._weights[f"{scope}/kernel"] = _variable(rng.randn(*shape) * 0.3, f"{scope}/kernel")
            self._weights[f"{scope}_bn/gamma"] = _variable(1 + 0.1 * rng.randn(out), f"{scope}_bn/gamma")
            self._weights[f"{scope}_bn/beta"] = _variable(0.3 + 0.1 * rng.randn(out), f"{scope}_bn/beta")
            for name, value in (("moving_mean", 0.1 * rng.randn(out)), ("moving_variance", 1 + 0.1 * rng.rand(out))):
                # As Keras has them, from which Hub's models are exported.
                self._moving[f"{scope}_bn/{name}"] = tf.Variable(
                    value.astype(np.float32),
                    name=f"{scope}_bn/{name}",
                    trainable=False,
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.MEAN,
                )
        self.trainable_variables_list = list(self._weights.values())
        self.regularization_losses = [self.l2]

    @tf.function(input_signature=[])
    def l2(self):
        return 1e-3 * tf.nn.l2_loss(self._weights["stem/conv1/kernel"])

    @tf.function
    def __call__(self, inputs, training=False):
        net = inputs
        for scope in ("stem/conv1", "top/conv2"):
            net = tf.nn.conv2d(net, self._weights[f"{scope}/kernel"], 1, "SAME")
            mean, variance = self._moving[f"{scope}_bn/moving_mean"], self._moving[f"{scope}_bn/moving_variance"]
            if training:
                batch_mean, batch_variance = tf.nn.moments(net, [0, 1, 2])
                mean.assign(0.9 * mean + 0.1 * batch_mean)
                variance.assign(0.9 * variance + 0.1 * batch_variance)
            else:
                batch_mean, batch_variance = mean, variance
            gamma, beta = self._weights[f"{scope}_bn/gamma"], self._weights[f"{scope}_bn/beta"]
            net = tf.nn.relu(tf.nn.batch_normalization(net, batch_mean, batch_variance, beta, gamma, 1e-3))
        return tf.reduce_mean(net, [1, 2])


def _variable(value, name):
    return tf.Variable(value.astype(np.float32), name=name)


def save_tiny_module(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Saves a TinyModule in hub's format and returns its values by name."""
    module = TinyModule(seed)
    spec = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)
    for training in (False, True):
        module.__call__.get_concrete_function(spec, training=training)
    export = tf.train.Checkpoint()
    export.v = list(module._weights.values()) + list(module._moving.values())
    export.__call__ = module.__call__
    export.variables = export.v
    export.trainable_variables = list(module._weights.values())
    export.regularization_losses = [module.l2]
    tf.saved_model.save(export, str(path))
    return {v.name.removesuffix(":0"): v.numpy() for v in export.v}


def tiny_keras_model(seed: int = 0):
    """A Functional Keras 2 model on 8x8 RGB pictures with batch norm, dropout and a 4-D output."""
    inputs = keras.Input((SIZE, SIZE, 3), name="picture")
    net = keras.layers.Conv2D(4, 3, use_bias=False, name="conv1", kernel_regularizer=keras.regularizers.L2(1e-3))(
        inputs
    )
    net = keras.layers.BatchNormalization(name="bn1")(net)
    net = keras.layers.ReLU(name="relu1")(net)
    net = keras.layers.Dropout(0.5, name="drop")(net)
    net = keras.layers.Conv2D(DEPTH, 3, use_bias=False, name="conv2")(net)
    net = keras.layers.BatchNormalization(name="bn2")(net)
    net = keras.layers.ReLU(name="relu2")(net)
    model = keras.Model(inputs, net, name="tiny")
    randomize(model, seed)
    return model


def randomize(model, seed: int) -> None:
    """Gives every weight, statistics included, values unlike any initializer's."""
    rng = np.random.RandomState(seed)
    values = []
    for weight in model.weights:
        noise = rng.randn(*weight.shape).astype(np.float32) * 0.2
        positive = "gamma" in weight.name or "variance" in weight.name
        values.append(1 + np.abs(noise) if positive else noise)
    model.set_weights(values)


def keras_values(model) -> dict[str, np.ndarray]:
    """Returns a Keras model's values by name."""
    return {weight.name.removesuffix(":0"): weight.numpy() for weight in model.weights}


@dataclasses.dataclass(frozen=True)
class Source:
    """A source under test, and the truth about it, taken from the source itself.

    Attributes:
      handle: for etl.backbone.
      size: of its pictures; 0 for a source that takes text.
      values: its pretrained values by variable name.
      trainable: the variables that it can train.
      partial: tuning spec -> the variables that it must train.
    """

    handle: str
    size: int
    values: dict[str, np.ndarray]
    trainable: frozenset[str]
    partial: dict[str, frozenset[str]]


def random_batches(size: int, classes: int = 3, batch: int = 4, seed: int = 0):
    """Returns an input_fn of random pictures in [0, 1] (or of words, for size 0) and labels, for ever."""
    rng = np.random.RandomState(seed)
    if size:
        features = {"image": rng.rand(4 * batch, size, size, 3).astype(np.float32)}
    else:
        features = {"text": [" ".join(rng.choice(tiny_text.VOCABULARY, 5)) for _ in range(4 * batch)]}
    labels = rng.randint(0, classes, 4 * batch)
    return lambda: tf.data.Dataset.from_tensor_slices((features, labels)).repeat().batch(batch)


def write_pictures(root: Path, classes=("cat", "dog", "owl"), count: int = 10, size: int = 12, seed: int = 0) -> Path:
    """Writes `count` PNG pictures a class, each class of its own colour with some noise."""
    rng = np.random.RandomState(seed)
    for index, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.randint(0, 90, (size, size, 3))
            pixels[:, :, index % 3] += 160
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{number:03d}.png")
    return root
