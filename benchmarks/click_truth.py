"""What is clicked on: COCO's annotated instances, and the pieces of VOC's class masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gransam_sdk.errors import InputError
from gransam_sdk.evaluation.class_names import COCO_CLASSES, COCO_VALUES, VOC_CLASSES
from gransam_sdk.evaluation.coco_truth import read_instances
from gransam_sdk.evaluation.components import connected_components
from gransam_sdk.evaluation.miou import IGNORE
from gransam_sdk.evaluation.voc import read_label_map
from gransam_sdk.rle import rle_area, rle_decode
from gransam_sdk.runtime.decode import decode_source
from gransam_sdk.shapes import Bool, Pixels

SPECK = 100
"""Pixels below which a piece of a VOC class mask is what something in front has left of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickPhoto:
    """A photo with masks to find.

    Attributes:
        path: Its file.
        pixels: (h,w,3) uint8.
        truths: (t,h,w) bool.
        names: t class names.
        counted: (h,w) bool, where the ground truth knows what is what.
    """

    path: Path
    pixels: Pixels
    truths: Bool
    names: tuple[str, ...]
    counted: Bool


def coco_photos(folder: Path, limit: int | None = None) -> Iterator[ClickPhoto]:
    """Every instance that is no crowd and has a pixel, of the first ``limit`` photos.

    Raises:
        InputError: See ``read_instances``; a photo of another size than its annotations.
    """
    for photo in read_instances(folder / "instances.json", COCO_VALUES)[:limit]:
        regions = [region for region in photo.regions if not region.crowd and rle_area(region.mask)]
        masks = [rle_decode(region.mask) for region in regions]
        yield _photo(
            folder / "images" / f"{photo.name}.jpg",
            np.array(masks, dtype=np.bool_).reshape(len(masks), *photo.size),
            [COCO_CLASSES[region.value] for region in regions],
            np.ones(photo.size, dtype=np.bool_),
        )


def voc_photos(folder: Path, limit: int | None = None) -> Iterator[ClickPhoto]:
    """Pieces of class masks that hang together, of ``SPECK`` pixels or more; outlines and difficult objects count
    nowhere.

    Raises:
        InputError: A label map that is none, or of another size than its photo.
    """
    for name in sorted((folder / "dev.txt").read_text(encoding="utf-8").split())[:limit]:
        labels = read_label_map(folder / "SegmentationClass" / f"{name}.png")
        masks, names = [], []
        for value in np.setdiff1d(labels, [0, IGNORE]).tolist():
            pieces = connected_components(labels == value)
            large = np.flatnonzero(np.bincount(pieces.ravel())[1:] >= SPECK) + 1
            masks += [pieces == piece for piece in large]
            names += [VOC_CLASSES[value]] * len(large)
        truths = np.array(masks, dtype=np.bool_).reshape(len(masks), *labels.shape)
        yield _photo(folder / "JPEGImages" / f"{name}.jpg", truths, names, labels != IGNORE)


def _photo(path: Path, truths: Bool, names: list[str], counted: Bool) -> ClickPhoto:
    pixels = decode_source(path).pixels
    if pixels.shape[:2] != counted.shape:
        raise InputError(f"photo {path}", expected=f"{counted.shape} as annotated", found=str(pixels.shape[:2]))
    return ClickPhoto(path=path, pixels=pixels, truths=truths, names=tuple(names), counted=counted)
