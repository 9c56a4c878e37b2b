"""Operations that have to be on the CPU, such as all on strings, wherever a graph runs."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat import tf

_CPU = "/device:CPU:0"


def on_cpu() -> Any:
    """Returns a context in which graph operations are placed on the CPU, those inside of loops and branches too.

    Where strings pass through a loop that nothing pins, a server with a GPU fails. TensorFlow copies a device into the
    functions that loops and branches are made of only where it is given as a function.
    """
    return tf.compat.v1.device(_with_cpu)


def _with_cpu(op: Any) -> str:
    spec = tf.DeviceSpec.from_string(op.device or "")
    return str(spec.make_merged_spec(tf.DeviceSpec.from_string(_CPU)).to_string())
