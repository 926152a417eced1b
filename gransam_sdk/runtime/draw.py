"""Masks painted over a photo: a tint, an outline with a pale rim, and a name that stays legible on any background."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..rle import rle_counts
from ..shapes import Bool, Pixels
from ..types import Rle

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Color = tuple[int, int, int]

TINT = 0.4
"""Share of the class colour in a painted pixel; the rest is the photo."""
OUTLINE_OF_SIDE, TEXT_OF_SIDE = 0.004, 0.024
"""Outline width and text height as shares of √(h·w), so that small and big photos look alike on a screen."""
LEAST_OUTLINE, LEAST_TEXT = 2, 12
"""Outline width and text height in pixels that small photos get all the same."""


def draw_masks(
    image: Pixels,
    masks: Sequence[Rle],
    names: Sequence[str],
    colors: Mapping[str, Color] | None = None,
    scores: Sequence[float] | None = None,
) -> Image.Image:
    """Paints masks over a photo; the first mask lies on top.

    Args:
        image: (h,w,3) uint8, the upright photo; left as it is.
        masks: n run-length codes of the photo's size.
        names: n class names. A name that does not fit into the photo is left off.
        colors: (r, g, b) by name; a name that is not in it gets :func:`name_color`.
        scores: n numbers in [0,1], printed as per cent behind the names; None prints the names alone.

    Returns:
        A PIL image of the same size.

    Raises:
        InputError: The photo is not (h,w,3) uint8, a mask has another size, or the lengths differ.
    """
    _check(image, masks, names, scores)
    from PIL import Image, ImageDraw

    painted = image.copy()
    labels = []
    side = float(np.sqrt(image.shape[0] * image.shape[1]))
    for i in reversed(range(len(masks))):
        window, x0, y0 = mask_window(masks[i])
        if not window.size:
            continue
        color = (colors or {}).get(names[i]) or name_color(names[i])
        _paint(painted[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]], window, color, _outline_width(side))
        text = names[i] if scores is None else f"{names[i]} {scores[i]:.0%}"
        labels.append(_Label(text=text, color=color, x=x0 + int(np.flatnonzero(window[0]).mean()), y=y0))
    picture = Image.fromarray(painted)
    _write_labels(ImageDraw.Draw(picture), picture.size, labels[::-1], max(LEAST_TEXT, round(TEXT_OF_SIDE * side)))
    return picture


def mask_window(mask: Rle) -> tuple[Bool, int, int]:
    """The smallest window that holds a mask; costs what the window costs, not what the photo does.

    Args:
        mask: Run-length code of a (h,w) mask.

    Returns:
        The window, bool, and the column x0 and row y0 of its top left pixel in the photo; (0,0) when nothing is set.
    """
    height = mask["size"][0]
    runs = rle_counts(mask)
    ends = np.cumsum(runs)
    set_runs = np.flatnonzero(runs[1::2]) * 2 + 1  # runs alternate, background first, down the columns
    first, last = (ends - runs)[set_runs], ends[set_runs]
    if not last.size:
        return np.zeros((0, 0), dtype=np.bool_), 0, 0
    x0, x1 = int(first[0]) // height, (int(last[-1]) - 1) // height + 1
    columns = np.zeros((x1 - x0) * height, dtype=np.bool_)
    for start, end in zip((first - x0 * height).tolist(), (last - x0 * height).tolist(), strict=True):
        columns[start:end] = True
    window = columns.reshape(x1 - x0, height).T
    rows = np.flatnonzero(window.any(axis=1))
    return window[rows[0] : rows[-1] + 1], x0, int(rows[0])


def voc_palette() -> Pixels:
    """(256,1,3) uint8: PASCAL VOC's colour map, bits of the index dealt to r, g, b from the top down."""
    palette = np.zeros((256, 1, 3), dtype=np.uint8)
    for index in range(256):
        for bit in range(8):
            palette[index, 0, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return palette


def name_color(name: str) -> Color:
    """The colour of a class that has none: a VOC colour picked by the name, the same in every run and process."""
    vivid = [index for index in range(256) if index % 8]  # the others have no channel above 96
    red, green, blue = voc_palette()[vivid[zlib.crc32(name.encode()) % len(vivid)], 0].tolist()
    return red, green, blue


def ink_on(color: Color) -> Color:
    """Black or white, whichever reads better on a colour (WCAG relative luminance)."""
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Label:
    """A name, its colour, and the pixel of the mask's top edge that it belongs to."""

    text: str
    color: Color
    x: int
    y: int


def _paint(pixels: Pixels, window: Bool, color: Color, width: int) -> None:
    """Tints and outlines one mask in place; the rim is pale so that dark colours show on dark photos."""
    rim = max(1, width // 3)
    inner = _shrink(window, rim)
    line, edge = inner & ~_shrink(inner, width), window & ~inner
    levels = (1 - TINT) * np.arange(256)
    for i in range(3):
        channel = pixels[..., i]
        tinted = np.rint(levels + TINT * color[i]).astype(np.uint8)  # a sum by level, not by pixel
        np.copyto(channel, tinted[channel], where=window)
        np.copyto(channel, color[i], where=line)
        np.copyto(channel, 255, where=edge)


def _shrink(mask: Bool, radius: int) -> Bool:
    """A mask without the pixels that have an unset one (or the window's end) within ``radius`` rows and columns."""
    shrunk = np.pad(mask, radius)
    for _ in range(2):  # rows, then columns; windows double, so the cost grows with log(radius)
        reach, wanted = 1, 2 * radius + 1
        while reach < wanted:
            step = min(reach, wanted - reach)
            shrunk = shrunk[:-step] & shrunk[step:]
            reach += step
        shrunk = shrunk.T
    return shrunk


def _write_labels(draw: ImageDraw.ImageDraw, size: tuple[int, int], labels: Sequence[_Label], height: int) -> None:
    """Writes each name on a plate of its colour, above the mask's top edge where that is inside the photo and free."""
    from PIL import ImageFont

    font = ImageFont.load_default(height)
    margin = max(2, height // 4)
    taken: list[tuple[int, int, int, int]] = []
    for label in labels:
        left, _, right, _ = draw.textbbox((0, 0), label.text, font=font, anchor="ls")
        plate = (round(right - left) + 2 * margin, height + 2 * margin)
        if plate[0] > size[0] or plate[1] > size[1]:
            continue
        x, y = _free_place(label, plate, size, taken)
        taken.append((x, y, x + plate[0], y + plate[1]))
        draw.rectangle((x, y, x + plate[0] - 1, y + plate[1] - 1), fill=label.color, outline=(255, 255, 255))
        baseline = y + margin + round(0.82 * height)
        draw.text((x + margin - left, baseline), label.text, fill=ink_on(label.color), font=font, anchor="ls")


def _free_place(
    label: _Label, plate: tuple[int, int], size: tuple[int, int], taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int]:
    """Top left pixel of a plate: above the mask, else the nearest free step below, else above another's plate."""
    x = min(max(label.x - plate[0] // 2, 0), size[0] - plate[0])
    places = []
    for step in (-1, 0, -2, 1, -3, 2, 3, 4):
        y = min(max(label.y + step * plate[1], 0), size[1] - plate[1])
        places.append(y)
        if all(x + plate[0] <= a or c <= x or y + plate[1] <= b or d <= y for a, b, c, d in taken):
            return x, y
    return x, places[0]


def _outline_width(side: float) -> int:
    return max(LEAST_OUTLINE, round(OUTLINE_OF_SIDE * side))


def _check(image: Pixels, masks: Sequence[Rle], names: Sequence[str], scores: Sequence[float] | None) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError("photo to draw on", expected="(h,w,3) uint8", found=f"{image.shape} {image.dtype}")
    if len(names) != len(masks) or (scores is not None and len(scores) != len(masks)):
        given = f"{len(masks)} masks, {len(names)} names, {len(masks) if scores is None else len(scores)} scores"
        raise InputError("masks to draw", expected="as many names and scores as masks", found=given)
    for mask in masks:
        if tuple(mask["size"]) != image.shape[:2]:
            raise InputError(
                "mask to draw",
                expected=f"the photo's size {image.shape[1]} x {image.shape[0]}",
                found=f"{mask['size'][1]} x {mask['size'][0]}",
                do="draw on the photo that gave the masks, turned upright",
            )
