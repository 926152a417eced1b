"""COCO's ``instances.json``: the annotated instances of the classes that are evaluated."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..annotate.exporters.voc import semantic_map
from ..errors import InputError
from ..rle import MAX_PIXELS, rle_area, rle_from_counts
from ..shapes import Pixels
from ..types import Rle
from .average_precision import Region
from .miou import IGNORE

_FARTHEST = 1e6  # px: pycocotools takes memory for every pixel that an outline crosses


@dataclass(frozen=True, slots=True, kw_only=True)
class TruePhoto:
    """A photo of the ground truth.

    Attributes:
        name: File name without folder and extension.
        size: (h, w) in pixels.
        regions: Its instances and crowds, of the evaluated classes alone.
    """

    name: str
    size: tuple[int, int]
    regions: tuple[Region, ...]

    def label_map(self) -> Pixels:
        """One label a pixel: smaller instances lie on larger ones, as in predictions of equal score.

        Returns:
            (h,w) uint8: 0 where no instance of an evaluated class lies, 255 where a crowd of one lies and no instance.
        """
        layers = [
            {
                "segmentation": region.mask,
                "score": 0.0 if region.crowd else 1.0,
                "area": rle_area(region.mask),
                "category_id": IGNORE if region.crowd else region.value,
            }
            for region in self.regions
        ]
        return semantic_map({"image": {"height": self.size[0], "width": self.size[1]}}, layers)


def read_instances(path: Path, meanings: Mapping[str, int]) -> list[TruePhoto]:
    """The photos of an ``instances.json`` with their instances, in the order of the file's images.

    Args:
        path: The file.
        meanings: Pixel value by lower-case category name; instances of other categories are left out.

    Raises:
        InputError: No such file, not COCO's format, no photo, none of the classes, two photos of one name, or an
            instance without a usable mask.
    """
    document = _read_document(path)
    try:
        values = {row["id"]: meanings.get(str(row["name"]).lower(), 0) for row in document["categories"]}
        images = [(row["id"], PurePosixPath(row["file_name"]).stem, _size(row)) for row in document["images"]]
        sizes = {image: (place, size) for place, (image, _, size) in enumerate(images)}
        parts: dict[Any, list[Region]] = {image: [] for image in sizes}
        for row in document["annotations"]:
            place, size = sizes[row["image_id"]]
            if value := values[row["category_id"]]:
                mask, crowd = _read_mask(row, size), bool(row.get("iscrowd", 0))
                parts[row["image_id"]].append(Region(photo=place, value=value, mask=mask, crowd=crowd))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{path}: {error.what}", expected=error.expected, found=error.found) from error
        found = f"{type(error).__name__}: {error}"
        raise InputError(str(path), expected="images, annotations and categories as in COCO", found=found) from error
    if not images or not any(values.values()):
        raise InputError(str(path), expected="photos, and categories of COCO", found="none of them")
    if len({name for _, name, _ in images}) < len(images) or len(sizes) < len(images):
        raise InputError(str(path), expected="photos of different names and ids", found="two of one")
    return [TruePhoto(name=name, size=size, regions=tuple(parts[image])) for image, name, size in images]


def _size(row: Mapping[str, Any]) -> tuple[int, int]:
    """(h, w) of a photo."""
    h, w = row["height"], row["width"]
    if not (isinstance(h, int) and isinstance(w, int) and h >= 1 and w >= 1 and h * w <= MAX_PIXELS):
        raise InputError(f"image {row['id']}", expected="height and width in pixels from 1", found=f"{h}, {w}")
    return h, w


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        found = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise InputError(f"ground truth {path}", expected="a JSON file of COCO instances", found=found) from error
    if not isinstance(document, dict):
        raise InputError(f"ground truth {path}", expected="a JSON object", found=type(document).__name__)
    return document


def _read_mask(row: Mapping[str, Any], size: tuple[int, int]) -> Rle:
    """The mask of an annotation, of whichever of COCO's three forms: polygons, run lengths, compressed run lengths.

    Raises:
        InputError: Another form, polygons that are none, or a mask of another size than the photo.
    """
    what, segmentation = f"mask of annotation {row.get('id')}", row["segmentation"]
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        if list(segmentation["size"]) != list(size):
            raise InputError(what, expected=f"the photo's size {list(size)}", found=str(segmentation["size"]))
        mask: Rle = {"size": list(size), "counts": counts} if isinstance(counts, str) else rle_from_counts(counts, size)
        rle_area(mask)  # reads the runs: what they hold is checked before other code trusts them
        return mask
    if not isinstance(segmentation, list) or not segmentation or not all(map(_is_polygon, segmentation)):
        raise InputError(what, expected="run lengths, or polygons of 3 points or more", found=repr(segmentation)[:60])
    from pycocotools import mask as coco_mask

    merged = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    return {"size": list(size), "counts": merged["counts"].decode("ascii")}


def _is_polygon(numbers: Any) -> bool:
    return (
        isinstance(numbers, list)
        and len(numbers) >= 6
        and len(numbers) % 2 == 0
        and all(isinstance(n, int | float) and math.isfinite(n) and abs(n) <= _FARTHEST for n in numbers)
    )
