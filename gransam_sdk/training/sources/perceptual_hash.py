"""Telling that two pictures look the same, though their bytes differ: another size, another compression."""

from __future__ import annotations

import numpy as np

from ...shapes import Pixels

MAX_DISTANCE = 6
"""Bits of 64 in which two pictures may differ and still be taken for the same."""


def difference_hash(pixels: Pixels) -> int:
    """The 64-bit difference hash (dHash, N. Krawetz): which of two neighbours of an 8 x 9 thumbnail is brighter.

    Args:
        pixels: (h,w,3) uint8 RGB.

    Returns:
        64 bits, row by row, the first one highest: 1 where the left neighbour is brighter.
    """
    from PIL import Image

    small = Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX)
    grey = np.asarray(small)  # (8,9) uint8
    return int.from_bytes(np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes(), "big")


class HashIndex:
    """Pictures by their hashes, to find those that look like a new one."""

    def __init__(self, max_distance: int = MAX_DISTANCE) -> None:
        """Starts empty; ``max_distance`` is the number of bits that may differ."""
        self._max_distance = max_distance
        self._names: dict[int, str] = {}

    def add(self, value: int, name: str) -> None:
        """Remembers a picture."""
        self._names.setdefault(value, name)

    def find(self, value: int) -> str | None:
        """The name of the first picture that looks the same, or None."""
        for other, name in self._names.items():
            if (other ^ value).bit_count() <= self._max_distance:
                return name
        return None
