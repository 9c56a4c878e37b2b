"""A small convolutional network, its pretraining, and its reusable SavedModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pictures
import tensorflow as tf

import estimator_tl as etl
from estimator_tl.inputs import ImageFolder

_WIDTHS = (32, 32, 64, 64)
_ORIENTATIONS = 8
STEPS = 1000
_BATCH = 64
_WARP = 0.3
_SHIFT = 1.0  # pixels


def network(seed: int) -> Any:
    """Returns the Keras 2 network from pictures in [0, 1] to 256 features, with random weights."""
    etl.keras.utils.set_random_seed(seed)
    layers = etl.keras.layers
    inputs = outputs = etl.keras.Input((pictures.SIZE, pictures.SIZE, 1))
    for index, width in enumerate(_WIDTHS):
        outputs = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv_{index}")(outputs)
        # Keras's own momentum of 0.99 needs more steps than a transfer has.
        outputs = layers.BatchNormalization(momentum=0.9, name=f"norm_{index}")(outputs)
        outputs = layers.ReLU()(outputs)
        if index % 2:
            outputs = layers.MaxPool2D()(outputs)
    return etl.keras.Model(inputs, layers.Flatten()(outputs))


def pretrain(folder: ImageFolder, seed: int, steps: int = STEPS) -> tuple[Any, float, int]:
    """Trains a new network on the train part of a folder.

    Turned and mirrored digits are classes of their own: a task of 40 classes
    teaches features that serve other digits too, where one of 5 classes does not.

    Args:
      folder: with a validation part.
      seed: of the first weights, the order and the distortions.
      steps: of training.

    Returns:
      The network without its classes, its accuracy on the upright digits of
      the validation part (the digit counts, the orientation does not), and
      the number of those.
    """
    keras, digits = etl.keras, len(folder.labels)
    features = network(seed)
    model = keras.Sequential([features, keras.layers.Dropout(0.3), keras.layers.Dense(digits * _ORIENTATIONS)])
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    train, validation = folder.examples("train"), folder.examples("validation")
    images, labels = _oriented(pictures.read(train.items), np.array(train.labels), digits)
    model.fit(_distorted(images, labels, seed), steps_per_epoch=steps, verbose=0)
    predicted = model.predict(pictures.read(validation.items), verbose=0).argmax(axis=1) % digits
    return features, float(np.mean(predicted == np.array(validation.labels))), len(validation)


def _oriented(images: np.ndarray, labels: np.ndarray, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pictures in all orientations; class = orientation * digits + digit."""
    turned = [np.rot90(images, quarters, axes=(1, 2)) for quarters in range(4)]
    views = [*turned, *(view[:, :, ::-1] for view in turned)]
    return np.concatenate(views), np.concatenate([labels + digits * number for number in range(_ORIENTATIONS)])


def _distorted(images: np.ndarray, labels: np.ndarray, seed: int) -> tf.data.Dataset:
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=seed).repeat()
    return batches.batch(_BATCH).map(lambda x, y: (_warped(x), y)).prefetch(tf.data.AUTOTUNE)


def _warped(images: tf.Tensor) -> tf.Tensor:
    """Turns, shears, scales and shifts each picture a little at random, in one resampling: two would blur 8 pixels."""
    number = tf.shape(images)[0]
    centre = tf.fill([number, 2, 1], (pictures.SIZE - 1) / 2)
    linear = tf.eye(2) + tf.random.uniform([number, 2, 2], -_WARP, _WARP)
    shift = centre - linear @ centre + tf.random.uniform([number, 2, 1], -_SHIFT, _SHIFT)
    affine = tf.reshape(tf.concat([linear, shift], axis=2), [number, 6])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.pad(affine, [[0, 0], [0, 2]]),  # the last two would be for perspective
        output_shape=[pictures.SIZE, pictures.SIZE],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def save(features: Any, path: Path) -> None:
    """Saves a network in the reusable format of https://www.tensorflow.org/hub/reusable_saved_models."""

    @tf.function
    def call(inputs: Any, training: bool = False) -> Any:
        return features(inputs, training=training)

    images = tf.TensorSpec([None, *features.input_shape[1:]], tf.float32)
    for training in (False, True):
        call.get_concrete_function(images, training=training)
    # tf.Module has `variables` as a property, which is not saved; a Checkpoint keeps what it is given.
    model = tf.train.Checkpoint(
        variables=features.variables, trainable_variables=features.trainable_variables, regularization_losses=[]
    )
    model.__call__ = call
    tf.saved_model.save(model, str(path))
