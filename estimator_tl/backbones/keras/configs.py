"""Configurations of Keras models, as graphs need them."""

from __future__ import annotations

from typing import Any

# By policy of a layer: the one that computes alike, with variables in float32. In half precision an optimizer's small
# steps, and Adam's squares of gradients, would be lost.
_WITH_FLOAT32 = {"float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}
HALF = tuple(_WITH_FLOAT32)


def rebuildable(config: Any) -> Any:
    """Returns a copy of a configuration, from which a model can be rebuilt in a graph.

    It is a copy, as layers such as `MultiHeadAttention` take out of their configuration what they have read. Variables
    in half precision become float32. The shapes that layers of users are built for are left out: Keras would build
    these outside of the layer's name scope, and their variables would be called kernel, kernel_1.
    """
    if isinstance(config, dict):
        copy = {key: rebuildable(value) for key, value in config.items() if key != "build_config"}
        if _is_layer(copy) and copy["class_name"] != "InputLayer":
            copy["config"]["dtype"] = _with_float32(copy["config"]["dtype"])
        return copy
    if isinstance(config, (list, tuple)):
        values = [rebuildable(value) for value in config]
        return tuple(values) if isinstance(config, tuple) else values
    return config


def _is_layer(config: dict[str, Any]) -> bool:
    inner = config.get("config")
    return "class_name" in config and isinstance(inner, dict) and {"name", "dtype"} <= set(inner)


def _with_float32(policy: Any) -> Any:
    """Returns a policy, which is a name or itself a configuration, with variables in float32."""
    if isinstance(policy, dict) and isinstance(policy.get("config"), dict):
        name = policy["config"].get("name")
        return {**policy, "config": {**policy["config"], "name": _WITH_FLOAT32.get(name, name)}}
    return _WITH_FLOAT32.get(policy, policy) if isinstance(policy, str) else policy
