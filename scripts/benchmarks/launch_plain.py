"""A hand-written program that trains a head on a frozen SavedModel. Arguments: MODULE PICTURES MODEL_DIR SIZE STEPS."""

from __future__ import annotations

import sys
from pathlib import Path

import tensorflow as tf

if not hasattr(tf, "estimator"):
    import estimator_tl

    estimator_tl.enable_estimator()


def main(module: str, pictures: str, model_dir: str, size: str, steps: str) -> None:
    """Trains the head."""
    files = sorted(str(path) for path in Path(pictures).glob("*/*"))
    classes = sorted({Path(path).parent.name for path in files})
    labels = [classes.index(Path(path).parent.name) for path in files]

    def input_fn():
        def load(path, label):
            image = tf.io.decode_image(tf.io.read_file(path), 3, expand_animations=False)
            return tf.image.resize(image, [int(size)] * 2) / 255.0, label

        data = tf.data.Dataset.from_tensor_slices((files, labels)).shuffle(len(files)).repeat()
        return data.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(32).prefetch(tf.data.AUTOTUNE)

    def model_fn(features, labels, mode):
        features = tf.saved_model.load(module)(features)
        features = tf.reshape(features, [-1, features.shape[-1]])
        kernel = tf.compat.v1.get_variable("kernel", [features.shape[-1], len(classes)])
        bias = tf.compat.v1.get_variable("bias", [len(classes)], initializer=tf.compat.v1.zeros_initializer())
        loss = tf.compat.v1.losses.sparse_softmax_cross_entropy(labels, features @ kernel + bias)
        step = tf.compat.v1.train.get_or_create_global_step()
        train_op = tf.compat.v1.train.AdamOptimizer(1e-3).minimize(loss, step, [kernel, bias])
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)

    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    tf.estimator.Estimator(model_fn, model_dir).train(input_fn, max_steps=int(steps))


if __name__ == "__main__":
    main(*sys.argv[1:])
