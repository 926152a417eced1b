"""The canary picture: made by code, the same on every machine, with something in it to segment."""

from __future__ import annotations

import numpy as np

from .shapes import Pixels


def canary_picture(side: int) -> Pixels:
    """A sky over ground with a sun, a box and a striped fence.

    Integer arithmetic only, so every platform and numpy makes the same bytes. A bundle records what its graphs answer
    for this picture; another answer at load means another engine, another head or a broken precision.

    Args:
        side: Height and width in pixels, 16 to 8192.

    Returns:
        (side,side,3) uint8 RGB.
    """
    y, x = (np.arange(side, dtype=np.int32) * 1024 // side for _ in range(2))  # all shapes live on a 1024 grid
    y = y[:, None]
    picture = np.empty((side, side, 3), dtype=np.int32)
    picture[..., 0] = 90 + y // 12
    picture[..., 1] = 140 + y // 16
    picture[..., 2] = 230 - y // 8 + x // 64
    ground = (y >= 640) & (x >= 0)
    speckle = ((x * 73 + y * 151) ^ (x * y // 7)) % 23
    picture[ground] = (70, 110, 50)
    picture += np.where(ground, speckle, 0)[..., None]
    disc = (x - 300) ** 2 + (y - 280) ** 2 < 150**2
    picture[disc] = (235, 190, 60)
    box = (x >= 560) & (x < 860) & (y >= 400) & (y < 800)
    picture[box] = (170, 45, 40)
    door = (x >= 660) & (x < 760) & (y >= 600) & (y < 800)
    picture[door] = (40, 30, 60)
    fence = (x >= 60) & (x < 480) & (y >= 700) & (y < 820)
    stripes = np.where((x // 20) % 2 == 0, 225, 60)
    picture[fence] = np.broadcast_to(stripes, (side, side))[fence][:, None]
    return picture.astype(np.uint8)
