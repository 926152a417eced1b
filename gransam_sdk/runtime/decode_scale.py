"""Decoding a JPEG no finer than the model looks: at 1/2, 1/4 or 1/8 of its sides, by libjpeg's scaled inverse DCT.

A block of 8 x 8 pixels then yields 4 x 4, 2 x 2 or 1 pixel from its lowest frequencies, which skips most of the work.
Every coefficient is still read, so a damaged file fails as it does when it is decoded in full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from .photo_header import exif_orientation
from .upright import is_on_its_side, upright_size

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

Least: TypeAlias = Callable[[tuple[int, int]], tuple[int, int]]
"""From (h, w) of an upright photo to the (rows, columns) of it, from 1, that decoding has to leave."""
Box: TypeAlias = tuple[int, int, float, float]
"""Left, upper, right and lower edge of the photo in what was decoded of it, in pixels."""


def scale_jpeg(image: ImageFile, least: Least) -> Box | None:
    """Has a JPEG that is not loaded yet decoded at the smallest scale that leaves enough of it.

    Args:
        image: An opened JPEG; its size changes.
        least: How much is enough.

    Returns:
        Where the photo lies in what ``load`` will give; None where Pillow cannot scale it.
    """
    orientation = exif_orientation(image.info.get("exif") or b"")
    rows, columns = least(upright_size(image.size, orientation))
    drafted = image.draft(None, (rows, columns) if is_on_its_side(orientation) else (columns, rows))
    return None if drafted is None else drafted[1]


def fill(image: Image.Image, box: Box | None) -> Image.Image:
    """Stretches a photo over its last row and column, of which a scaled one may cover only a part.

    Without that, what is right or below would lie up to seven eighths of a pixel too far left or up.

    Args:
        image: A loaded photo.
        box: From ``scale_jpeg``.
    """
    if box is None or box[2:] == image.size:
        return image
    from PIL import Image

    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)
