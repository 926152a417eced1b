"""A folder of training data made of discs: every photo has a red and a blue one on grey noise, with a label map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gransam_sdk.models.imagenet_teacher import Teacher

SIZE = (60, 80)
"""h, w of every photo."""


def draw_discs(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Pixels and regions 1 and 300, the second of which 8 bits do not hold."""
    rng = np.random.default_rng(number)
    pixels = np.repeat(rng.integers(110, 140, (*SIZE, 1)), 3, axis=2).astype(np.uint8)
    regions = np.zeros(SIZE, np.uint16)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for value, color, middle in ((1, (220, 30, 30), 20), (300, (30, 30, 220), 60)):
        inside = (y - rng.integers(20, 40)) ** 2 + (x - middle) ** 2 < rng.integers(8, 16) ** 2
        pixels[inside], regions[inside] = color, value
    return pixels, regions


def write_data(root: Path, count: int = 12, *, kind: str = "objects", source: str = "voc2012_train_aug") -> Path:
    """DATA with so many photos, in PNG under the names that an index gives."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = []
    for number in range(count):
        pixels, regions = draw_discs(number)
        Image.fromarray(pixels).save(root / "images" / f"{number:05d}.jpg", quality=95)
        Image.fromarray(regions).save(root / "masks" / f"{number:05d}.png")
        rows.append({"file": f"{number:05d}", "source": source, "original": f"photo-{number}", "kind": kind})
    (root / "index.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return root


def random_teacher() -> Teacher:
    """A teacher whose maps vary, unlike a freshly made one's, which fade away with depth."""
    generator = torch.Generator().manual_seed(5)
    teacher = Teacher()
    for parameter in teacher.parameters():
        scale = 0.1 if parameter.ndim == 1 else (2.0 / parameter[0].numel()) ** 0.5
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return teacher.eval().requires_grad_(False)
