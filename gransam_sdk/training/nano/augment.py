"""Views of a photo and of its label maps: crop, stretch, flip, and what cameras and files do to colours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ...shapes import AnyArray, Float, Int, Pixels
from .config import SegmenterConfig

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Of RGB, ITU-R BT.601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is seen of a photo: a box of it, stretched to a square, mirrored or not.

    Attributes:
        left, top: Of the box, in pixels.
        width, height: Of the box, in pixels.
        mirrored: Left becomes right.
        side: s of the square.
    """

    left: int
    top: int
    width: int
    height: int
    mirrored: bool
    side: int

    def of_photo(self, pixels: Pixels) -> Pixels:
        """(h,w,3) uint8 to (s,s,3), bilinear as photos are resized for the model."""
        box = (self.left, self.top, self.left + self.width, self.top + self.height)
        size = (self.side, self.side)
        seen = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, box=box))
        return seen[:, ::-1] if self.mirrored else seen

    def of_map(self, numbers: Int) -> Int:
        """(h,w) to (s,s), the nearest pixel's number."""
        centres = (np.arange(self.side) + 0.5) / self.side
        rows = self.top + (centres * self.height).astype(np.int64)
        columns = self.left + (centres * self.width).astype(np.int64)
        return numbers[np.ix_(rows, columns[::-1] if self.mirrored else columns)]


def whole_view(pixels: Pixels, side: int) -> View:
    """All of a photo (h,w,3), stretched."""
    return View(left=0, top=0, width=pixels.shape[1], height=pixels.shape[0], mirrored=False, side=side)


def draw_view(rng: np.random.Generator, pixels: Pixels, side: int, config: SegmenterConfig) -> View:
    """A random crop of a photo (h,w,3): area, stretch and place are uniform, half of all are mirrored."""
    height, width = pixels.shape[:2]
    area = rng.uniform(config.crop, 1.0) * height * width
    stretch = math.exp(rng.uniform(-config.aspect, config.aspect)) * width / height
    crop_height = min(height, max(1, round(math.sqrt(area / stretch))))
    crop_width = min(width, max(1, round(math.sqrt(area * stretch))))
    return View(
        left=int(rng.integers(width - crop_width + 1)),
        top=int(rng.integers(height - crop_height + 1)),
        width=crop_width,
        height=crop_height,
        mirrored=bool(rng.random() < 0.5),
        side=side,
    )


def recolour(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Another light, another camera, another file: (s,s,3) uint8 to the same.

    Contrast and brightness always; saturation, gain of each channel, blur and JPEG now and then; grey seldom.
    """
    x: Float = pixels.astype(np.float32)
    mean = float(x.mean())
    x = (x - np.float32(mean)) * np.float32(rng.uniform(0.6, 1.4)) + np.float32(mean * rng.uniform(0.7, 1.3))
    chance = rng.random(5)
    if chance[0] < 0.6:
        grey: Float = (x @ LUMA)[..., None]
        x = grey + (x - grey) * np.float32(rng.uniform(0.4, 1.6) if chance[0] > 0.1 else 0.0)
    if chance[1] < 0.5:
        x *= rng.uniform(0.8, 1.2, 3).astype(np.float32)
    out = (np.clip(x, 0.0, 255.0) + 0.5).astype(np.uint8)
    if chance[2] < 0.15:
        blur = ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5))
        out = np.asarray(Image.fromarray(out).filter(blur))
    if chance[3] < 0.15:
        out = _as_jpeg(out, int(rng.integers(25, 80)))
    return out


def four_in_one(quarters: list[AnyArray]) -> AnyArray:
    """Four squares (s/2,s/2,...) as one (s,s,...)."""
    return np.concatenate([np.concatenate(quarters[:2], axis=1), np.concatenate(quarters[2:], axis=1)])


def as_input(pixels: Pixels) -> NDArray[np.uint8]:
    """(s,s,3) uint8 to (3,s,s), contiguous."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _as_jpeg(pixels: Pixels, quality: int) -> Pixels:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    with Image.open(file, formats=("JPEG",)) as image:
        return np.asarray(image)
