"""The devices of a session."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.errors import UserError
from estimator_tl.types import Strategy


def check_devices(strategy: Strategy, session_config: Any) -> None:
    """Checks that a session has all devices of a strategy; TensorFlow would wait without end for a missing device.

    Args:
      strategy: a `tf.distribute` strategy.
      session_config: the ConfigProto of its session, or None.

    Raises:
      UserError: the session lacks a device.
    """
    tf = load_tensorflow()
    limits = dict(session_config.device_count) if session_config else {}
    counts = {"CPU": limits.get("CPU", 1), "GPU": len(tf.config.list_physical_devices("GPU"))}
    counts["GPU"] = min(counts["GPU"], limits.get("GPU", counts["GPU"]))
    for name in getattr(strategy.extended, "worker_devices", ()):
        device = tf.DeviceSpec.from_string(name)
        kind, index = device.device_type, device.device_index or 0
        if kind in counts and index >= counts[kind]:
            remedy = "use fewer replicas"
            if kind == "CPU":
                remedy = (
                    f"use session_config=tf.compat.v1.ConfigProto(device_count={{'CPU': {index + 1}}}, "
                    f"allow_soft_placement=True), or etl.run_config(cpu_replicas={index + 1})"
                )
            raise UserError(
                f"the strategy needs {kind}:{index}, but the number of {kind}s in the session is {counts[kind]}; "
                f"{remedy}."
            )
