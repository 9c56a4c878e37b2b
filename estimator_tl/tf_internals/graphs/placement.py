"""Places operations on the CPU, for example all operations on strings, wherever a graph runs."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat import tf

_CPU = "/device:CPU:0"


def on_cpu() -> Any:
    """Returns a context that places graph operations on the CPU, also inside loops and branches.

    A server with a GPU fails if strings pass through a loop that is not pinned to the CPU. TensorFlow copies a device
    into the functions of loops and branches only if the device is given as a function.
    """
    return tf.compat.v1.device(_with_cpu)


def _with_cpu(op: Any) -> str:
    spec = tf.DeviceSpec.from_string(op.device or "")
    return str(spec.make_merged_spec(tf.DeviceSpec.from_string(_CPU)).to_string())
