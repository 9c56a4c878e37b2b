"""Classifies a picture with an exported SavedModel, with nothing but TensorFlow.

Usage: python classify_export.py EXPORT PICTURE
"""

from __future__ import annotations

import sys
from pathlib import Path

import tensorflow as tf

_SHADES = " ░▒▓█"


def drawing(encoded: bytes) -> str:
    """Returns a grey picture as lines of block characters."""
    pixels = tf.io.decode_image(encoded, channels=1)[..., 0].numpy()
    # Two characters a pixel, as those of a terminal are about twice as high as wide.
    return "\n".join("  " + "".join(2 * _SHADES[int(p) * len(_SHADES) // 256] for p in row) for row in pixels)


def main(export: str, picture: str) -> None:
    """Draws a picture and prints its class and the score of every class."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] # terminals without block characters
    encoded = Path(picture).read_bytes()
    signature = tf.saved_model.load(export).signatures["serving_default"]
    outputs = {name: value.numpy()[0] for name, value in signature(image_bytes=tf.constant([encoded])).items()}
    names = [name.decode() for name in outputs["all_classes"]]
    scores = "  ".join(f"{name}: {score:.3f}" for name, score in zip(names, outputs["probabilities"]))
    print(f"{drawing(encoded)}\n  class {outputs['classes'][0].decode()}   scores {scores}")


if __name__ == "__main__":
    main(*sys.argv[1:])
