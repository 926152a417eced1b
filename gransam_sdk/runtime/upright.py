"""Which way up a photo lies: undoing an EXIF orientation, 1 to 8."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""EXIF orientation: the transposition (counter-clockwise) that undoes it."""


def is_on_its_side(orientation: int) -> bool:
    """Whether the stored rows are the upright photo's columns."""
    return orientation >= 5


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(h, w) of the upright photo from the stored (w, h)."""
    w, h = size
    return (w, h) if is_on_its_side(orientation) else (h, w)


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Undoes an EXIF orientation, before the colours are looked at: Pillow turns faster than numpy."""
    if orientation == 1:
        return image
    from PIL import Image

    return image.transpose(Image.Transpose[_TURNS[orientation]])
