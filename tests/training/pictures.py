"""Class folders of small pictures that all differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"blue": (40, 40, 220), "red": (220, 40, 40), "_background": (128, 128, 128)}


def write_picture(path: Path, color: tuple[int, int, int], number: int = 0) -> None:
    """A plain picture with one other stripe, whose place is the number."""
    pixels = np.full((30, 40, 3), color, dtype=np.uint8)
    pixels[:, 2 * number : 2 * number + 2] = (10, 200, 10)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_pictures(root: Path, count: int = 3, classes: tuple[str, ...] = ("blue", "red")) -> Path:
    """``count`` pictures in each class folder."""
    for name in classes:
        for number in range(count):
            write_picture(root / name / f"{number}.png", COLORS[name], number)
    return root
