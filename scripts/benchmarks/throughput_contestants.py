"""The contestants: estimator_tl, a hand-written model_fn, Keras 2 `fit`, and the forward pass alone."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
from collections.abc import Callable, Sequence
from typing import Any

from throughput_pacing import Pace, PaceCallback, PaceHook
from throughput_plain import PlainNetwork

import estimator_tl as etl
from estimator_tl.backbones import Backbone
from estimator_tl.compat import estimator, keras, tf
from estimator_tl.config import TrainingSpec
from estimator_tl.launch.hooks.progress import ProgressHook
from estimator_tl.launch.run.session import local_config

OURS, BY_HAND, FIT, FORWARD = "estimator_tl", "hand-written model_fn", "Keras 2 fit", "forward pass only"
_LEARNING_RATE = 1e-3
_BATCHES = 4
_NO_CHECKPOINTS = 1 << 30


@dataclasses.dataclass(frozen=True)
class Task:
    """The training task of all contestants.

    Attributes:
      source: the backbone.
      network: the same network without estimator_tl.
      batch_size: examples per step.
      classes: number of classes of the head.
      folder: parent folder of the model directories.
    """

    source: Backbone
    network: PlainNetwork
    batch_size: int
    classes: int
    folder: str

    def dataset(self) -> Any:
        """Returns endless batches (images, labels) from memory."""

        def example(index: Any) -> Any:
            seed = tf.stack([tf.constant(0, tf.int64), index])
            pixels = tf.random.stateless_uniform(self.source.image_spec.shape, seed, maxval=255.0)
            label = tf.random.stateless_uniform([], seed, maxval=self.classes, dtype=tf.int64)
            return self.source.image_spec.preprocess(pixels), label

        examples = tf.data.Dataset.range(_BATCHES * self.batch_size).map(example)
        return examples.batch(self.batch_size).cache().repeat().prefetch(2)


def contestants(task: Task, modes: Sequence[str]) -> dict[str, Callable[[Pace], None]]:
    """Returns the contestants by name; contestants to compare are next to each other.

    Args:
      task: the training task.
      modes: frozen, full or both.
    """
    groups: list[dict[str, Callable[[Pace], None]]] = []
    for mode in modes:
        trainers = ((OURS, _train_ours), (BY_HAND, _train_by_hand), (FIT, _fit))
        groups.append({f"{name}, {mode}": functools.partial(train, task, mode == "full") for name, train in trainers})
    groups.insert(1, {FORWARD: functools.partial(_forward, task)})
    return {name: train for group in groups for name, train in group.items()}


def _train_ours(task: Task, full: bool, pace: Pace) -> None:
    """Trains like the command ``train``, including its progress line, on the same data as the others."""
    model_fn = etl.make_model_fn(
        backbone=task.source,
        head=etl.heads.classifier(n_classes=task.classes),
        tuning=etl.tuning.full() if full else etl.tuning.frozen(),
        optimizer=etl.optimizers.adam(_LEARNING_RATE),
        backbone_dropout=False,  # the others also call the backbone for inference
        show_plan=lambda text: None,
    )
    folder = os.path.join(task.folder, f"ours_{full}")
    training = TrainingSpec(
        train_steps=pace.total_steps, batch_size=task.batch_size, save_checkpoints_steps=_NO_CHECKPOINTS
    )
    config = local_config(folder, training)
    progress = ProgressHook(pace.total_steps, task.batch_size, stream=io.StringIO())
    model = estimator.Estimator(model_fn, folder, config, params={})
    model.train(task.dataset, max_steps=pace.total_steps, hooks=[progress, PaceHook(pace)])


def _train_by_hand(task: Task, full: bool, pace: Pace) -> None:
    """Trains a model_fn that is written by hand for this model."""

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        built = task.network.build(features)
        pooled = task.source.pool(built.outputs)
        kernel = tf.compat.v1.get_variable("kernel", [pooled.shape[-1], task.classes])
        bias = tf.compat.v1.get_variable("bias", [task.classes], initializer=tf.compat.v1.zeros_initializer())
        loss = tf.compat.v1.losses.sparse_softmax_cross_entropy(labels, tf.linalg.matmul(pooled, kernel) + bias)
        if full and built.losses:
            loss += tf.add_n(built.losses)
        train_op = tf.compat.v1.train.AdamOptimizer(_LEARNING_RATE).minimize(
            loss,
            global_step=tf.compat.v1.train.get_global_step(),
            var_list=[kernel, bias, *(built.trainable if full else ())],
        )
        return estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, scaffold=_scaffold(built.init_fn))

    folder = os.path.join(task.folder, f"by_hand_{full}")
    config = estimator.RunConfig(folder, save_checkpoints_steps=_NO_CHECKPOINTS)
    model = estimator.Estimator(model_fn, folder, config)
    model.train(task.dataset, max_steps=pace.total_steps, hooks=[PaceHook(pace)])


def _scaffold(init_fn: Callable[[Any], None] | None) -> Any:
    return init_fn and tf.compat.v1.train.Scaffold(init_fn=lambda scaffold, session: init_fn(session))


def _fit(task: Task, full: bool, pace: Pace) -> None:
    inputs = keras.Input(task.source.image_spec.shape)
    outputs = task.network.layer(trainable=full)(inputs, training=False)
    pooled = keras.layers.Lambda(task.source.pool)(outputs)
    model = keras.Model(inputs, keras.layers.Dense(task.classes)(pooled))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(_LEARNING_RATE), loss)
    model.fit(task.dataset(), steps_per_epoch=pace.total_steps, verbose=0, callbacks=[PaceCallback(pace)])


def _forward(task: Task, pace: Pace) -> None:
    with tf.Graph().as_default():
        images, _ = tf.compat.v1.data.make_one_shot_iterator(task.dataset()).get_next()
        built = task.network.build(images)
        features = task.source.pool(built.outputs)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            if built.init_fn:
                built.init_fn(session)
            for _ in range(pace.total_steps):
                pace.before_step()
                session.run(features.op)  # the op instead of the tensor, so that no value is copied
                pace.after_step()
