"""Values of checkpoints."""

from __future__ import annotations

from estimator_tl.compat import tf


def checkpoint_values(path):
    reader = tf.train.load_checkpoint(str(path))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
