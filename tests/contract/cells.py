"""The cells of the contract matrix."""

from __future__ import annotations

SOURCES = (
    "hub_module",
    "keras_h5",
    "keras_zip",
    "keras_folder",
    "application",
    "v1_checkpoint",
    "keras_checkpoint",
    "text_module",
    "tf1_module",
    "tf1_references",
    "mobilenet_v2",
    "densenet",
    "efficientnet",
    "resnet",
    "vgg",
)


STEPS = 4


def tuning_and_moves(source, policy):
    """The spec of a policy for a source, and what each of four steps must move of the source."""
    # A sentence encoder of one variable has nothing to train in part.
    spec, top = next(iter(source.partial.items()), ("full", source.trainable))
    nothing, everything = frozenset(), source.trainable
    if policy == "phases":
        return f"phases(phase(frozen, 1), phase({spec}, 3), full)", [nothing, top, top, everything]
    if policy == "gradual":
        patterns = [f"^{name}$" for name in sorted(top)], [f"^{name}$" for name in sorted(everything - top)]
        by = ["|".join(names) for names in patterns]
        return f"gradual(2, by={by!r}, head_steps=1)", [nothing, top, top, everything]
    return {
        "frozen": ("frozen", [nothing] * STEPS),
        "partial": (spec, [top] * STEPS),
        "full": ("full", [everything] * STEPS),
    }[policy]
