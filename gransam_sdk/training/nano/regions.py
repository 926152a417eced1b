"""Label maps that nobody drew: what a function finds in a photo beside what people drew in it, made once and kept.

FOLDER/<sha256 of recipe, photo and drawn maps>-<i>of<n>.png      16-bit grey, one a map
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ...annotate.disk import open_folder, put_file
from ...errors import InputError
from ...proposals.unsam_plus import merge_unsam_plus
from ...runtime.photo_file import read_bytes
from ...shapes import AnyArray, Bool, Int, Pixels
from ..writer_words import said_of
from .data import LabelMap, TrainingData, TrainingPhoto

RegionMaps = Callable[[Pixels], Sequence[AnyArray]]
"""A photo (h,w,3) uint8 to label maps (h,w) uint16, coarse and fine: 0 none, every other value one region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSource:
    """Where label maps come from that nobody drew.

    Attributes:
        maps: Makes them; the same photo always gives the same.
        recipe: Names how: another recipe is made anew, beside the old.
        folder: Keeps them.
    """

    maps: RegionMaps
    recipe: str
    folder: Path


def with_regions(
    data: TrainingData, source: RegionSource, *, progress: Callable[[int, int], None] | None = None
) -> TrainingData:
    """The data with the source's label maps behind those of every photo that is trained on.

    Of what is found in a photo with drawn maps, those regions stay that UnSAM+ would add to the drawn ones.

    Args:
        data: What was read.
        source: What the cache does not have is made now.
        progress: Told (photos done, photos in all).

    Raises:
        InputError: A photo cannot be decoded, or the source's maps are not what they must be.
        OutputError: The cache cannot be written to; what was made stays.
    """
    with said_of("region maps", kept="the maps that were made are kept"):
        open_folder(source.folder)
        kept = _kept(source.folder)
        photos = []
        for done, photo in enumerate(data.photos, start=1):
            photos.append(replace(photo, maps=(*photo.maps, *_maps_of(photo, source, kept))))
            if progress:
                progress(done, len(data.photos))
    return replace(data, photos=tuple(photos))


def _kept(folder: Path) -> dict[str, list[Path]]:
    """Files of each key, in order; only where all are there."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*of*.png")):
        found.setdefault(path.name.split("-")[0], []).append(path)
    return {key: paths for key, paths in found.items() if len(paths) == int(paths[0].stem.split("of")[-1])}


def _maps_of(photo: TrainingPhoto, source: RegionSource, kept: dict[str, list[Path]]) -> list[LabelMap]:
    parts = (source.recipe.encode(), photo.data, *(item.png for item in photo.maps))
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    if key not in kept:
        pixels = photo.pixels()
        drawn = [item.regions() for item in photo.maps]
        made = [_beside(_checked(numbers, pixels, source.recipe), drawn) for numbers in source.maps(pixels)]
        if not made:
            raise InputError(f"region maps of {photo.name}", expected="one or more", found="none")
        kept[key] = [source.folder / f"{key}-{i}of{len(made)}.png" for i in range(1, len(made) + 1)]
        for path, numbers in zip(kept[key], made, strict=True):
            put_file(path, _png(numbers))
    return [LabelMap(name=str(path), png=read_bytes(path), whole=False, labelled=False) for path in kept[key]]


def _checked(numbers: AnyArray, pixels: Pixels, recipe: str) -> AnyArray:
    if numbers.shape != pixels.shape[:2] or numbers.dtype != np.uint16:
        raise InputError(
            f"region map of {recipe}",
            expected=f"{pixels.shape[:2]} uint16",
            found=f"{numbers.shape} {numbers.dtype}",
        )
    return numbers


def _beside(numbers: AnyArray, drawn: Sequence[Int]) -> AnyArray:
    """A map without those regions that UnSAM+'s rule does not add to the drawn ones."""
    given = [masks for masks in map(_masks, drawn) if len(masks)]
    if not given:
        return numbers
    kept = merge_unsam_plus(np.concatenate(given), _masks(numbers))
    return np.where(np.isin(numbers, _values(numbers)[kept]), numbers, np.uint16(0))


def _masks(numbers: AnyArray) -> Bool:
    """(n,h,w) bool, a mask for each region of a map (h,w)."""
    return np.asarray(numbers == _values(numbers)[:, None, None])


def _values(numbers: AnyArray) -> AnyArray:
    values = np.unique(numbers)
    return values[values > 0]


def _png(numbers: AnyArray) -> bytes:
    out = BytesIO()
    Image.fromarray(numbers).save(out, "PNG")
    return out.getvalue()
