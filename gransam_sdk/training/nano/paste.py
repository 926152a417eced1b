"""Objects of one photo put into another (copy-paste, Ghiasi et al. 2021): each is seen in more places and sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...shapes import Bool, Float, Int, Pixels
from .clicks import SeenMap

SIZES = (0.08, 0.5)
"""Longest side of a pasted object, as a share of the square's; drawn evenly in its logarithm."""

LEAST_PIXELS = 64
"""An object that has fewer in its own photo is not pasted: enlarged it would be a smear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout:
    """An object cut out of its photo.

    Attributes:
        pixels: (h,w,3) uint8, its box.
        region: (h,w) which of them are it.
    """

    pixels: Pixels
    region: Bool


def draw_cutout(rng: np.random.Generator, pixels: Pixels, numbers: Int) -> Cutout | None:
    """A random region of a label map (h,w), cut out of its photo (h,w,3); none where all are too small."""
    areas = np.bincount(numbers.ravel())
    areas[0] = 0
    large = np.flatnonzero(areas >= LEAST_PIXELS)
    if not len(large):
        return None
    region: Bool = numbers == large[rng.integers(len(large))]
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return Cutout(pixels=pixels[box], region=region[box])


def paste(
    rng: np.random.Generator, pixels: Pixels, maps: Sequence[SeenMap], cutouts: Sequence[Cutout]
) -> tuple[Pixels, list[SeenMap]]:
    """Cutouts at random places and sizes, mirrored or not, the later ones in front.

    Args:
        rng: Draws.
        pixels: (s,s,3) uint8, what they are put into.
        maps: Its label maps.
        cutouts: At least one.

    Returns:
        The picture, and its label maps without what is hidden now, and one more: the cutouts, as far as they are seen.
    """
    out: Float = pixels.astype(np.float32)
    pasted = np.zeros(pixels.shape[:2], dtype=np.int64)
    for number, cutout in enumerate(cutouts, start=1):
        covering, alpha = _resized(rng, cutout, len(pixels))
        height, width = alpha.shape
        y, x = (int(rng.integers(len(pixels) - size + 1)) for size in (height, width))
        box = (slice(y, y + height), slice(x, x + width))
        out[box] = out[box] * (1.0 - alpha[..., None]) + covering
        pasted[box][alpha >= 0.5] = number
    hidden = pasted > 0
    seen = [
        SeenMap(numbers=np.where(hidden, 0, item.numbers), whole=item.whole, labelled=item.labelled) for item in maps
    ]
    return np.clip(out + 0.5, 0.0, 255.0).astype(np.uint8), [*seen, SeenMap(numbers=pasted, whole=True, labelled=True)]


def _resized(rng: np.random.Generator, cutout: Cutout, side: int) -> tuple[Float, Float]:
    """A cutout at a random size, at most twice as large as it was: pixels times coverage (h,w,3), coverage (h,w).

    Pixels are multiplied before they are resized, or what was around the object would come along at its edge.
    """
    height, width = cutout.region.shape
    low, high = (math.log(share * side) for share in SIZES)
    scale = min(math.exp(rng.uniform(low, high)) / max(height, width), 2.0)
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    mirrored = slice(None, None, -1 if rng.random() < 0.5 else 1)
    alone = Image.fromarray(cutout.pixels * cutout.region[..., None]).resize(size, Image.Resampling.BILINEAR)
    cover = Image.fromarray(cutout.region.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    alpha: Float = np.asarray(cover, dtype=np.float32)[:, mirrored] / np.float32(255.0)
    return np.asarray(alone, dtype=np.float32)[:, mirrored], alpha
