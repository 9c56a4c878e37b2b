"""The real data that ``ESTIMATOR_TL_DATA`` names; without it, the tests of this folder skip and say so.

The folder holds ``backbones/`` and ``images/``, with the names that the fixtures below use.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "ESTIMATOR_TL_DATA"


def _part(folder: Path, *names: str) -> Path:
    """Returns a file or folder of the real data; skips the test where it is missing."""
    path = folder.joinpath(*names)
    if not path.exists():
        pytest.skip(f"{VARIABLE} names a folder without {'/'.join(names)}")
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data."""
    name = os.environ.get(VARIABLE, "")
    if not name:
        pytest.skip(f"{VARIABLE} does not name the folder of the real data")
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        pytest.skip(f"{VARIABLE}={name} is not a folder")
    return folder


@pytest.fixture(scope="session")
def real_backbones(real_data: Path) -> Path:
    """The folder of the pretrained networks."""
    return _part(real_data, "backbones")


@pytest.fixture(scope="session")
def real_images(real_data: Path) -> Path:
    """An image folder of ten classes, about 80 photos each."""
    return _part(real_data, "images", "sign_language_digits")


@pytest.fixture(scope="session")
def mobilenet_tf2(real_backbones: Path) -> Path:
    """MobileNet v1 0.25 as a TF2 SavedModel: 224 px, images in [0, 1]."""
    return _part(real_backbones, "mobilenet_v1_025_224_tf2")


@pytest.fixture(scope="session")
def mobilenet_tf1(real_backbones: Path) -> Path:
    """MobileNet v1 0.25 as a TF1 Hub module: 128 px, images in [0, 1]."""
    return _part(real_backbones, "mobilenet_v1_025_128_tf1hub")


@pytest.fixture(scope="session")
def mobilenet_weights(real_backbones: Path) -> Path:
    """Weights for ``keras.MobileNet(alpha=0.25)`` without its top: 224 px, images in [-1, 1]."""
    return _part(real_backbones, "mobilenet_v1_025_224_no_top.weights.h5")


@pytest.fixture(scope="session")
def real_photos(real_images: Path) -> list[Path]:
    """The first photo of each class, in the order of the classes."""
    return [next(iter(sorted(folder.iterdir()))) for folder in sorted(real_images.iterdir()) if folder.is_dir()]
