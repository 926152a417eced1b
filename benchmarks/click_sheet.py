"""A sheet of clicks to look at: the best, the middling and the worst, each on a crop of its photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from gransam_sdk.rle import rle_box, rle_decode
from gransam_sdk.runtime.decode import decode_source
from gransam_sdk.shapes import Bool
from gransam_sdk.types import Rle

TILES = 6
"""Across; one photo is in a row once."""
TILE, GAP, MARGIN, HEAD, CAPTION = 272, 16, 32, 84, 48
"""Pixels of a tile's sides, between tiles, around all, of the title and of the text under a tile."""
ROOM, LEAST = 0.4, 96
"""Surroundings shown on each side, as a share of the instance's longer side; least side of a crop in photo pixels."""
FINE = 2
"""Everything is drawn this much larger and then shrunk, for smooth edges."""
PAPER, CARD, INK, QUIET = (250, 250, 251), (233, 235, 238), (24, 27, 31), (98, 105, 114)
FOUND, TRUTH, CLICK = (255, 92, 40), (40, 235, 150), (20, 90, 255)
TINT = 0.42

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One click.

    Attributes:
        photo: File.
        name: What was clicked on.
        point: (x, y) in pixels of the photo.
        truth: Its mask.
        found: The mask that was chosen.
        iou: Of the two.
        predicted: What the segmenter said.
    """

    photo: Path
    name: str
    point: tuple[float, float]
    truth: Rle
    found: Rle
    iou: float
    predicted: float


def write_sheet(shown: Sequence[Shown], path: Path, what: str) -> None:
    """Writes the sheet as a picture.

    Args:
        shown: All clicks; which are on the sheet follows from their IoU.
        path: File, of any format that Pillow writes.
        what: Said in the title.
    """
    rows = choose(shown)
    width = 2 * MARGIN + TILES * TILE + (TILES - 1) * GAP
    height = MARGIN + HEAD + len(rows) * (TILE + CAPTION + 36) + MARGIN // 2
    sheet = Image.new("RGB", (FINE * width, FINE * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, MARGIN, MARGIN, f"One click: {what}", 26, INK)
    _write(draw, MARGIN, MARGIN + 34, f"{len(shown)} clicks; the number is the IoU of the chosen mask", 15, QUIET)
    _legend(draw, width - MARGIN, MARGIN + 6)
    y = MARGIN + HEAD
    for title, row in rows.items():
        _write(draw, MARGIN, y, title, 17, INK)
        y += 30
        for number, each in enumerate(row):
            x = MARGIN + number * (TILE + GAP)
            sheet.paste(tile(each), (FINE * x, FINE * y))
            _write(draw, x, y + TILE + 8, f"{each.iou:.2f}", 19, INK)
            _write(draw, x + 48, y + TILE + 12, f"predicted {each.predicted:.2f}", 14, QUIET)
            _write(draw, x + TILE, y + TILE + 12, each.name, 14, QUIET, right=True)
        y += TILE + CAPTION + 6
    sheet.resize((width, height), Image.Resampling.BOX).save(path)


def choose(shown: Sequence[Shown]) -> dict[str, list[Shown]]:
    """The rows of the sheet by title; of equal IoU the first ones."""
    middle = float(np.median([each.iou for each in shown])) if shown else 0.0
    orders = {
        "Best": sorted(shown, key=lambda each: -each.iou),
        "Median": sorted(shown, key=lambda each: abs(each.iou - middle)),
        "Worst": sorted(shown, key=lambda each: each.iou),
    }
    return {title: _one_a_photo(order)[:TILES] for title, order in orders.items()}


def tile(shown: Shown) -> Image.Image:
    """A crop of the photo with the found mask tinted, the true one outlined, and the click."""
    pixels = decode_source(shown.photo).pixels
    box = crop_box(rle_box(shown.truth), (pixels.shape[0], pixels.shape[1]))
    side = FINE * TILE
    scale = side / max(box[2] - box[0], box[3] - box[1])
    size = (round((box[2] - box[0]) * scale), round((box[3] - box[1]) * scale))
    picture = Image.fromarray(pixels).crop(box).resize(size, Image.Resampling.BICUBIC)
    found, truth = (_enlarged(rle_decode(mask), box, size) for mask in (shown.found, shown.truth))
    picture = Image.composite(Image.blend(picture, Image.new("RGB", size, FOUND), TINT), picture, found)
    picture.paste(FOUND, mask=_outline(found, 1))
    picture.paste((0, 0, 0), mask=_outline(truth, 2))
    picture.paste(TRUTH, mask=_outline(truth, 1))
    _dot(ImageDraw.Draw(picture), *((at - low) * scale for at, low in zip(shown.point, box, strict=False)))
    card = Image.new("RGB", (side, side), CARD)
    card.paste(picture, ((side - size[0]) // 2, (side - size[1]) // 2))
    return card


def crop_box(box: Box, size: tuple[int, int]) -> Box:
    """A square around an instance's box, with as much room as the photo has, moved into it; cut where it is smaller.

    Args:
        box: XYXY in pixels.
        size: (h, w).
    """
    longest = max(box[2] - box[0], box[3] - box[1])
    side = max(min(max((1 + 2 * ROOM) * longest, LEAST), *size), longest)
    ends = []
    for low, high, length in ((box[0], box[2], size[1]), (box[1], box[3], size[0])):
        start = min(max(0, round((low + high - side) / 2)), max(0, length - round(side)))
        ends.append((start, min(length, start + round(side))))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


def _one_a_photo(order: Sequence[Shown]) -> list[Shown]:
    first: dict[Path, Shown] = {}
    for each in order:
        first.setdefault(each.photo, each)
    return list(first.values())


def _enlarged(mask: Bool, box: Box, size: tuple[int, int]) -> Image.Image:
    """A crop of a mask at the size of the picture, with smooth edges, as 0 and 255."""
    crop = Image.fromarray(mask.astype(np.uint8) * 255).crop(box)
    return crop.resize(size, Image.Resampling.BICUBIC).point([255 * (value > 127) for value in range(256)])


def _outline(mask: Image.Image, width: int) -> Image.Image:
    """A line of ``width`` pixels of the sheet on both sides of a mask's edge."""
    reach = 2 * FINE * width - 1
    return ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(reach)), mask.filter(ImageFilter.MinFilter(reach)))


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    for radius, colour in ((7, (255, 255, 255)), (5, CLICK)):
        reach = FINE * radius
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)


def _legend(draw: ImageDraw.ImageDraw, right: int, y: int) -> None:
    """What the marks mean, in one line that ends at ``right``."""
    for name, colour in (("chosen mask", FOUND), ("true outline", TRUTH), ("click", CLICK)):
        right -= round(_font(15).getlength(name) / FINE)
        _write(draw, right, y, name, 15, INK)
        x, middle = FINE * (right - 16), FINE * (y + 9)
        if colour == CLICK:
            _dot(draw, x, middle)
        elif colour == TRUTH:
            draw.line((x - 8 * FINE, middle, x + 8 * FINE, middle), fill=TRUTH, width=3 * FINE)
        else:
            draw.rectangle((x - 8 * FINE, middle - 7 * FINE, x + 8 * FINE, middle + 7 * FINE), fill=FOUND)
        right -= 48


def _write(
    draw: ImageDraw.ImageDraw, x: int, y: int, text: str, height: int, colour: tuple[int, int, int], right: bool = False
) -> None:
    anchor = "ra" if right else "la"
    draw.text((FINE * x, FINE * y), text, fill=colour, font=_font(height), anchor=anchor)


def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FINE * height)
