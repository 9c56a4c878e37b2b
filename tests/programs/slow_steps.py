"""A learning rate that takes its time, so that a test can act in the middle of a run: for --import_modules."""

import os
import time

from estimator_tl.compat import tf
from estimator_tl.optimization.schedules import registry


@registry.register()
def slowly(learning_rate: float, until: str, secs: float = 0.05):
    """The same rate at every step, `secs` later as long as there is no file `until`."""

    def wait(step):
        if not os.path.exists(until):
            time.sleep(secs)
        return step

    def rate(step, total_steps):
        step = tf.numpy_function(wait, [step], tf.int64)
        return learning_rate + 0.0 * tf.cast(tf.reshape(step, []), tf.float32)

    return rate
