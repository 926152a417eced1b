"""Files that tests of several rooms read: photos of scikit-image's wheel, which is not imported, and our weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

CHECKPOINT = Path(__file__).resolve().parents[2] / "weights" / "nano.safetensors"
"""The embedded segmenter as it was trained."""

SHARED = Path(__file__).resolve().parents[3] / "shared"
"""Development data beside the checkout; absent where only the repository is."""


def sample_path(name: str) -> Path:
    """``chelsea.png``, ``astronaut.png``, ``coffee.png``, ``motorcycle_left.png`` or ``rocket.jpg``."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data" / name


def sample_pixels(name: str) -> np.ndarray:
    """(h,w,3) uint8."""
    with Image.open(sample_path(name)) as image:
        return np.array(image.convert("RGB"))
