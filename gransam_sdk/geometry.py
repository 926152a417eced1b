"""Where a photo lies in the model's square, and how a low-res mask becomes a mask of the photo.

A photo of (h,w) pixels is resized to ``resized`` = (rh,rw) model pixels and put at the top left of the (s,s) square:
``stretch`` fills the square (rh = rw = s), ``letterbox`` keeps the sides' ratio as SAM does and pads right and below.
Low-res logits (l,l) cover the whole square, so only their first rh·l/s rows and rw·l/s columns show the photo. Two
counts follow from that:

- **valid** cells have their centre in the photo; masks are compared on them (NMS, containment);
- **readable** cells, ceil(rh·l/s) by ceil(rw·l/s), cover the photo to its edge; masks are resized from them.

Row y of the photo reads the low-res logits at (y + 0.5)·(rh/h)·(l/s) - 0.5, held inside the readable rows, and
columns alike: one bilinear step. For ``stretch`` this is ``torch.nn.functional.interpolate(mode="bilinear",
align_corners=False)``, whose float32 arithmetic is followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .errors import InputError
from .shapes import AnyArray, Bool, Float, Int

Resize = Literal["stretch", "letterbox"]
"""How a photo is brought into the model's square."""

REDUCTIONS = (1, 2, 4, 8)
"""A photo may be at hand with 1/this of its sides, rounded up: what a JPEG decoder scales by."""
_BLOCK_ROWS = 32
"""Photo rows interpolated at a time: their float rows stay in the processor's cache."""
_EMPTY: Bool = np.zeros((0, 0), dtype=np.bool_)
_EMPTY.setflags(write=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A photo's place in the model's square.

    Attributes:
        size: (h, w) of the photo in pixels.
        side: s, side of the square in model pixels.
        resized: (rh, rw), the photo's sides in model pixels, each 1 to s.
        reduction: Of ``REDUCTIONS``: the photo's pixels are at hand with 1/this of its sides.
    """

    size: tuple[int, int]
    side: int
    resized: tuple[int, int]
    reduction: int = 1

    def __post_init__(self) -> None:
        """Reject sides that no photo or model has."""
        if min(self.size) < 1 or not 1 <= min(self.resized) <= max(self.resized) <= self.side:
            raise InputError(
                "frame",
                expected="photo sides from 1 and resized sides from 1 to the model's",
                found=f"photo {self.size}, resized {self.resized}, model side {self.side}",
            )

    @property
    def at_hand(self) -> tuple[int, int]:
        """(rows, columns) of the pixels that are resized to the model's."""
        return _reduced(self.size, self.reduction)

    @classmethod
    def fit(cls, size: tuple[int, int], side: int, resize: Resize, reduction: int = 1) -> Frame:
        """Place a photo.

        Args:
            size: (h, w) of the photo in pixels.
            side: s, side of the model's square in pixels.
            resize: ``stretch`` or ``letterbox`` (long side = s, short side rounded as SAM's ``ResizeLongestSide``
                does, but never below 1).
            reduction: With 1/this of its sides the photo is at hand.

        Raises:
            InputError: ``resize`` is neither, or a side is below 1.
        """
        if resize not in ("stretch", "letterbox"):
            raise InputError("resize", expected="stretch | letterbox", found=repr(resize))
        if min(size) < 1 or side < 1:
            raise InputError("photo or model size", expected="sides from 1", found=f"{size}, model side {side}")
        if resize == "stretch":
            return cls(size=size, side=side, resized=(side, side), reduction=reduction)
        h, w = size
        scale = side * 1.0 / max(h, w)
        resized = (max(int(h * scale + 0.5), 1), max(int(w * scale + 0.5), 1))
        return cls(size=size, side=side, resized=resized, reduction=reduction)

    def to_model(self, points: Float) -> Float:
        """Points of the photo as points of the square.

        Args:
            points: (g,2) float32 XY in [0,1] of the photo.

        Returns:
            (g,2) float32 XY in [0,1] of the model square.
        """
        rh, rw = self.resized
        return points * np.array([rw / self.side, rh / self.side], dtype=np.float32)

    def valid(self, low_res_side: int) -> tuple[int, int]:
        """(rows, columns) of the (l,l) cells whose centres lie in the photo, each >= 1."""
        s, low = self.side, low_res_side
        rows, columns = (max(-((s - 2 * side * low) // (2 * s)), 1) for side in self.resized)  # ceil(side·l/s - 1/2)
        return rows, columns


def reduction_between(size: tuple[int, int], at_hand: tuple[int, int]) -> int:
    """Which of ``REDUCTIONS`` makes a photo of ``size`` (h,w) one of ``at_hand`` (rows, columns).

    Raises:
        InputError: None of them.
    """
    for reduction in REDUCTIONS:
        if _reduced(size, reduction) == at_hand:
            return reduction
    raise InputError(
        "photo",
        expected=f"{size} pixels, or 1/2, 1/4 or 1/8 of its sides, rounded up",
        found=f"{at_hand} pixels of a photo said to have {size}",
    )


def _reduced(size: tuple[int, int], reduction: int) -> tuple[int, int]:
    return -(-size[0] // reduction), -(-size[1] // reduction)


def full_size_mask(logits: Float, frame: Frame) -> tuple[Bool, int, int]:
    """Resize low-res logits to the photo (see the module) and cut them at 0, only where they can be positive.

    A bilinear value above 0 needs a positive cell among the four that it is read from, so photo pixels that read none
    of the positive cells' box are left out before anything is computed.

    Args:
        logits: (l,l) float32 low-res logits of one mask.
        frame: The photo's place in the model's square.

    Returns:
        The mask's crop (ch,cw) bool, and the column x0 and row y0 of its top left pixel in the photo; the mask is False
        outside. A mask without a pixel is an empty crop (0,0) at 0, 0.

    Raises:
        InputError: The logits are not a square float32 matrix.
    """
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1] or logits.dtype != np.float32:
        raise InputError("low-res logits", expected="(l,l) float32", found=f"{logits.shape}, {logits.dtype}")
    low = logits.shape[0]
    readable_rows, readable_columns = (-(-side * low // frame.side) for side in frame.resized)
    positive = logits[:readable_rows, :readable_columns] > 0
    row_hits, column_hits = np.flatnonzero(positive.any(axis=1)), np.flatnonzero(positive.any(axis=0))
    if not len(row_hits):
        return _EMPTY, 0, 0
    y0, upper, lower, below = _taps(frame, 0, low, readable_rows, row_hits)
    x0, left, right, beside = _taps(frame, 1, low, readable_columns, column_hits)
    if not len(upper) or not len(left):
        return _EMPTY, 0, 0
    # Across first, on the few low-res rows that are read, then down, block by block.
    top = upper[0]
    cells = logits[top : lower[-1] + 1]
    across = cells[:, left] * (1 - beside) + cells[:, right] * beside  # (low-res rows, cw)
    crop = np.empty((len(upper), len(left)), dtype=np.bool_)
    for start in range(0, len(upper), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        weight = below[block, None]
        values = across[upper[block] - top] * (1 - weight)
        values += across[lower[block] - top] * weight
        np.greater(values, 0, out=crop[block])
    return (crop, x0, y0) if crop.any() else (_EMPTY, 0, 0)


def _taps(frame: Frame, axis: int, low: int, readable: int, hits: Int) -> tuple[int, Int, Int, Float]:
    """What the photo pixels that read a positive cell read, along one axis.

    Args:
        frame: The photo's place in the model's square.
        axis: 0 for rows, 1 for columns.
        low: l, side of the low-res logits.
        readable: Number of low-res cells that may be read.
        hits: (m,) ascending cells with a positive logit on this axis.

    Returns:
        The first such pixel; for it and those after it the first cell, the second cell, and the second's weight.
    """
    length = frame.size[axis]
    scale = np.float32(frame.resized[axis] * low / (length * frame.side))
    places = scale * (np.arange(length, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    places = np.clip(places, 0, readable - 1)
    first: AnyArray = places.astype(np.int64)
    start = int(np.searchsorted(first, hits[0] - 1, side="left"))
    stop = int(np.searchsorted(first, hits[-1], side="right"))
    first = first[start:stop]
    return start, first, np.minimum(first + 1, readable - 1), places[start:stop] - first.astype(np.float32)
