"""Changes configurations of Keras models so that graphs can rebuild the models."""

from __future__ import annotations

from typing import Any

# For each half-precision policy, the policy that computes the same way with float32 variables. In half precision, the
# small steps of an optimizer and Adam's squares of gradients would be lost.
_WITH_FLOAT32 = {"float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}
HALF = tuple(_WITH_FLOAT32)


def rebuildable(config: Any) -> Any:
    """Returns a copy of a configuration from which a model can be rebuilt in a graph.

    It is a copy because layers such as `MultiHeadAttention` remove entries from the configuration that they read.
    Half-precision variables become float32. The input shapes of users' layers are left out: with them, Keras would
    build the layers outside of their name scopes, and name their variables kernel, kernel_1.
    """
    if isinstance(config, dict):
        copy = {key: rebuildable(value) for key, value in config.items() if key != "build_config"}
        if _is_layer(copy) and copy["class_name"] != "InputLayer":
            copy["config"]["dtype"] = _with_float32(copy["config"]["dtype"])
        return copy
    if isinstance(config, tuple):
        return tuple(map(rebuildable, config))
    if isinstance(config, list):
        return list(map(rebuildable, config))
    return config


def _is_layer(config: dict[str, Any]) -> bool:
    inner = config.get("config")
    return "class_name" in config and isinstance(inner, dict) and {"name", "dtype"} <= set(inner)


def _with_float32(policy: Any) -> Any:
    """Returns a policy, which is a name or a configuration, with float32 variables."""
    if isinstance(policy, str):
        return _WITH_FLOAT32.get(policy, policy)
    if isinstance(policy, dict) and isinstance(policy.get("config"), dict):
        name = policy["config"].get("name")
        return {**policy, "config": {**policy["config"], "name": _WITH_FLOAT32.get(name, name)}}
    return policy
