"""A linear regression whose weights after any number of steps are known in closed form, for Estimator tests."""

from __future__ import annotations

import numpy as np

from estimator_tl.compat import estimator, tf

RATE = 0.05
_RANDOM = np.random.RandomState(7)
X = _RANDOM.randn(16, 3).astype(np.float32)
Y = X @ np.array([[1.0], [-2.0], [0.5]], np.float32)


def input_fn(batch_size=16):
    """Whole epochs of the 16 examples in order."""
    return tf.data.Dataset.from_tensor_slices(({"x": X}, Y)).repeat().batch(batch_size, drop_remainder=True)


def eval_input_fn():
    """One epoch."""
    return tf.data.Dataset.from_tensor_slices(({"x": X}, Y)).batch(8)


def model_fn(features, labels, mode):
    """Mean squared error of a kernel that starts at zero, plain gradient descent."""
    kernel = tf.compat.v1.get_variable("kernel", [3, 1], initializer=tf.compat.v1.zeros_initializer())
    predictions = tf.matmul(features["x"], kernel)
    if mode == estimator.ModeKeys.PREDICT:
        return estimator.EstimatorSpec(mode, predictions={"y": predictions})
    loss = tf.compat.v1.losses.mean_squared_error(labels, predictions)
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(RATE)
    train_op = optimizer.minimize(loss, tf.compat.v1.train.get_global_step())
    return estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


def kernel_after(steps, batch_size=16):
    """The kernel that `steps` steps on `input_fn(batch_size)` must give, in float64."""
    kernel = np.zeros([3, 1])
    for step in range(steps):
        rows = np.arange(step * batch_size, (step + 1) * batch_size) % len(X)
        kernel -= RATE * 2 / batch_size * X[rows].T @ (X[rows] @ kernel - Y[rows])
    return kernel


def eval_loss(kernel):
    """The mean squared error of `kernel` on all examples."""
    return float(np.mean((X @ kernel - Y) ** 2))
