"""The devices of a session."""

from __future__ import annotations

from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.errors import UserError


def check_devices(strategy: Any, session_config: Any) -> None:
    """Checks that a session has the devices that a strategy names; TensorFlow would wait for them for ever.

    Args:
      strategy: a `tf.distribute` strategy.
      session_config: the ConfigProto of its session, or None.

    Raises:
      UserError: it has not.
    """
    tf = load_tensorflow()
    counts = dict(session_config.device_count) if session_config else {}
    there = {"CPU": counts.get("CPU", 1), "GPU": len(tf.config.list_physical_devices("GPU"))}
    there["GPU"] = min(there["GPU"], counts.get("GPU", there["GPU"]))
    for name in getattr(strategy.extended, "worker_devices", ()):
        device = tf.DeviceSpec.from_string(name)
        kind, index = device.device_type, device.device_index or 0
        if kind in there and index >= there[kind]:
            remedy = (
                f"use session_config=tf.compat.v1.ConfigProto(device_count={{'CPU': {index + 1}}}, "
                f"allow_soft_placement=True), or etl.run_config(cpu_replicas={index + 1})"
                if kind == "CPU"
                else "use fewer replicas"
            )
            raise UserError(f"the strategy names {kind}:{index}, but the session has {there[kind]} {kind}s; {remedy}.")
