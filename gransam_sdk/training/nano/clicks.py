"""Clicks: which regions are clicked, where in them, and what the answer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...shapes import Bool, Float, Int
from .config import SegmenterConfig

SIXTEENTHS = 16
"""Pixels of a low-res pixel: its truth is how many of them are inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenMap:
    """A label map as it is seen.

    Attributes:
        numbers: (s,s) int64, 0 where nothing is labelled.
        whole: Whether each region is one whole object.
        labelled: Whether people drew it.
    """

    numbers: Int
    whole: bool
    labelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Clicks:
    """Clicks on one photo and their masks.

    Attributes:
        points: (p,2) float32 XY in [0,1].
        masks: (p,l,l) uint8, pixels of 16 that are inside.
        whole: (p,) whether the mask is one whole object.
    """

    points: Float
    masks: NDArray[np.uint8]
    whole: Bool


def draw_clicks(rng: np.random.Generator, maps: Sequence[SeenMap], config: SegmenterConfig) -> Clicks | None:
    """Clicks on random regions, or none where no region is large enough.

    A map is drawn first, labelled by people or not, then a region by the square root of its area, then a pixel.

    Args:
        rng: Draws.
        maps: Of one photo, all of one side s, a multiple of 4.
        config: Clicks a photo, least area, share of labelled maps.
    """
    usable = [(item, *_large_regions(item.numbers, config.least_area)) for item in maps]
    usable = [entry for entry in usable if len(entry[1])]
    groups = [[entry for entry in usable if entry[0].labelled is labelled] for labelled in (True, False)]
    if not usable:
        return None
    points, masks, whole = [], [], []
    for _ in range(config.clicks):
        group = groups[0 if rng.random() < config.labelled else 1] or groups[0] or groups[1]
        item, numbers, areas = group[rng.integers(len(group))]
        odds = np.sqrt(areas)
        region: Bool = item.numbers == rng.choice(numbers, p=odds / odds.sum())
        points.append(_draw_point(rng, region))
        masks.append(low_res(region))
        whole.append(item.whole)
    return Clicks(points=np.stack(points), masks=np.stack(masks), whole=np.array(whole))


def _large_regions(numbers: Int, least: float) -> tuple[Int, Int]:
    """Numbers and areas of the regions that cover at least that share of the square."""
    areas = np.bincount(numbers.ravel())
    areas[0] = 0
    kept = np.flatnonzero(areas >= max(1.0, least * numbers.size))
    return kept, areas[kept]


def _draw_point(rng: np.random.Generator, region: Bool) -> Float:
    """Centre of a random pixel that is not at the region's border, where there is one: (2,) XY."""
    inside = np.flatnonzero(inner(region))
    if not len(inside):
        inside = np.flatnonzero(region)
    y, x = divmod(int(inside[rng.integers(len(inside))]), region.shape[1])
    return pixel_centre(y, x, region.shape)


def pixel_centre(y: int, x: int, shape: tuple[int, ...]) -> Float:
    """(2,) float32 XY in [0,1]."""
    return np.array([(x + 0.5) / shape[1], (y + 0.5) / shape[0]], dtype=np.float32)


def inner(region: Bool) -> Bool:
    """Pixels of a region (h,w) all eight neighbours of which are in it: those two pixels or more from its border.

    Beyond the photo nothing is in it.
    """
    out = np.zeros_like(region)
    rows = region[:-2] & region[1:-1] & region[2:]
    out[1:-1, 1:-1] = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
    return out


def low_res(region: Bool) -> NDArray[np.uint8]:
    """(s,s) to (s/4,s/4), pixels of 16 that are inside."""
    side = len(region) // 4
    out: NDArray[np.uint8] = region.reshape(side, 4, side, 4).sum(axis=(1, 3), dtype=np.uint8)
    return out


def border_distance(region: Bool) -> Float:
    """(h,w) float32: distance in pixels from each pixel's centre to the nearest one outside; beyond the photo is
    outside.

    Exact, one axis after the other (Felzenszwalb and Huttenlocher 2012, equation 2): along columns by counting, then
    over each row the least of squared column distance plus squared offset.
    """
    padded = np.pad(region, 1)
    down = np.zeros(padded.shape, dtype=np.float32)
    up = np.zeros_like(down)
    for y in range(1, len(padded)):
        down[y] = np.where(padded[y], down[y - 1] + 1, 0)
        up[-1 - y] = np.where(padded[-1 - y], up[-y] + 1, 0)
    squared = np.square(np.minimum(down, up))
    at = np.arange(padded.shape[1], dtype=np.float32)
    offsets = np.square(at[:, None] - at[None])  # (w,w)
    nearest = np.stack([(offsets + row).min(axis=1) for row in squared])
    distance: Float = np.sqrt(nearest[1:-1, 1:-1])
    return distance


def surest_point(region: Bool) -> Float:
    """(2,) float32 XY of the pixel that is farthest from the border of a region (h,w), the first of several."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    distance = border_distance(region[top : rows[-1] + 1, left : columns[-1] + 1])
    y, x = divmod(int(distance.argmax()), distance.shape[1])
    return pixel_centre(top + y, left + x, region.shape)
