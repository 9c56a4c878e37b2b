"""Structures of made-up sources."""

from __future__ import annotations

from estimator_tl.structure import SourceStructure, SourceVariable


def layered(layers=("in", "a", "a_bn", "relu", "b", "b_bn", "out")):
    variables = []
    for name in layers:
        if name.endswith("_bn"):
            leaves = (("gamma", True), ("beta", True), ("moving_mean", False), ("moving_variance", False))
            variables += [
                SourceVariable(f"{name}/{leaf}", (4,), "float32", can, name, f"{name}/gamma") for leaf, can in leaves
            ]
        elif name in ("a", "b"):
            variables.append(SourceVariable(f"{name}/kernel", (3, 4), "float32", True, name))
    return SourceStructure("layered", tuple(variables), layers=tuple(layers))


def flat():
    source = layered()
    return SourceStructure("flat", tuple(v for v in source.variables), None, one_training_switch=True)


B_BN = {"b_bn/gamma", "b_bn/beta"}
