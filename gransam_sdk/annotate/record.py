"""One JSON record a photo: SA-1B's keys plus ours, the same bytes for the same photo on every machine.

No time, host or thread count is in it. Coordinates carry two decimals, probabilities six, so that the text is stable.
The format is described in ``docs/record-format.md``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from ..errors import ImageError, InputError
from ..rle import rle_area
from ..runtime.result import Result
from .keys import record_name

Record: TypeAlias = dict[str, Any]
"""A record as JSON gives it: ``schema``, ``image``, ``annotations``."""

SCHEMA = 1
FOLDER = "records"
SUFFIX = ".json"

_IMAGE_KEYS = ["file_name", "width", "height", "sha256", "orientation"]
_ANNOTATION_KEYS = [
    *("id", "segmentation", "bbox", "area", "predicted_iou", "stability_score", "point_coords", "crop_box"),
    *("class", "category_id", "confidence", "score", "runner_up"),
]
_LARGEST = 1e300
_SHA256 = re.compile(r"[0-9a-f]{64}")


def make_record(result: Result, *, key: str, sha256: str, orientation: int) -> Record:
    """The record of one photo, annotations by falling score.

    Args:
        result: What the segmenter found; every mask in it is recorded.
        key: The photo's path relative to its input, with forward slashes.
        sha256: Hex digest of the photo file's bytes.
        orientation: EXIF orientation that was applied, 1 to 8; masks and boxes are in the upright frame.

    Raises:
        ImageError: A score is not a finite number (reason ``non-finite``).
    """
    h, w = result.size
    image = {"file_name": key, "width": w, "height": h, "sha256": sha256, "orientation": orientation}
    annotations = [_annotation(result, index) for index in range(len(result))]
    annotations.sort(key=lambda annotation: -annotation["score"])  # stable: ties keep the order of the result
    numbered = [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)]
    return {"schema": SCHEMA, "image": image, "annotations": numbered}


def dump_record(record: Record) -> bytes:
    """The record as one line of UTF-8 JSON with a newline at its end."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode() + b"\n"


def parse_record(data: bytes, *, masks: bool = True) -> Record:
    """Reads a record and checks all of it: keys, types, ranges, and that every mask fills its photo.

    Args:
        data: The bytes of a record file.
        masks: Also read the masks' run lengths, which takes longer than everything else together; without it, whoever
            decodes a mask finds out.

    Raises:
        InputError: The bytes are torn, are not a record, or contradict themselves.
    """
    if not data.endswith(b"}\n"):
        _wrong("the end of the file", "a closing brace and a newline", repr(data[-20:]))
    try:
        record = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError("record", expected="one JSON object in UTF-8", found=str(error)) from error
    _expect_keys("record", record, ["schema", "image", "annotations"])
    if record["schema"] != SCHEMA:
        _wrong("schema", f"{SCHEMA}, what this version reads", repr(record["schema"]))
    image = record["image"]
    _expect_keys("image", image, _IMAGE_KEYS)
    _expect("image file_name", "a name", image["file_name"], isinstance(image["file_name"], str))
    for side in ("width", "height"):
        _expect(f"image {side}", "pixels from 1", image[side], _is_int(image[side]) and image[side] >= 1)
    sha256 = image["sha256"]
    _expect("image sha256", "64 hex digits", sha256, isinstance(sha256, str) and bool(_SHA256.fullmatch(sha256)))
    orientation = image["orientation"]
    _expect("image orientation", "1 to 8", orientation, _is_int(orientation) and 1 <= orientation <= 8)
    _expect("annotations", "a list", record["annotations"], isinstance(record["annotations"], list))
    for number, annotation in enumerate(record["annotations"], start=1):
        _check_annotation(annotation, number, [image["height"], image["width"]], masks)
    return dict(record)


def record_path(key: str) -> str:
    """Where the record of a photo lies inside the run folder."""
    return f"{FOLDER}/{record_name(key)}"


def iter_records(run: Path) -> Iterator[Record]:
    """All records of a run folder, sorted by their path without its suffix; one is in memory at a time.

    Masks are not decoded here.

    Args:
        run: The run folder.

    Raises:
        InputError: A record is damaged.
    """
    for path in _record_files(run / FOLDER):
        try:
            yield parse_record(path.read_bytes(), masks=False)
        except InputError as error:
            raise InputError(
                f"{path}: {error.what}",
                expected=error.expected,
                found=error.found,
                do="annotate its photo again, which makes a new record, or delete this file",
            ) from error


def _record_files(folder: Path) -> Iterator[Path]:
    """Record files below a folder, in the order of the bytes of their path without ``.json``."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        names = [
            (os.fsencode(f"{entry.name}/"), True, entry.name)
            if entry.is_dir(follow_symlinks=False)
            else (os.fsencode(entry.name.removesuffix(SUFFIX)), False, entry.name)
            for entry in entries
            if entry.is_dir(follow_symlinks=False) or _is_record_name(entry.name)
        ]
    for _, is_folder, name in sorted(names):
        if is_folder:
            yield from _record_files(folder / name)
        else:
            yield folder / name


def _is_record_name(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith(".gransam-")


def _annotation(result: Result, index: int) -> dict[str, Any]:
    """One annotation without its id, keys in the order of the format."""
    h, w = result.size
    confidence, score = float(result.confidence[index]), float(result.scores[index])
    predicted_iou, stability = float(result.predicted_iou[index]), float(result.stability_score[index])
    x0, y0, x1, y1 = (float(value) for value in result.boxes[index])
    point = [float(value) for value in result.points[index]]
    if not all(map(math.isfinite, (confidence, score, predicted_iou, stability, x0, y0, x1, y1, *point))):
        raise ImageError(
            "non-finite",
            f"mask {index + 1} of {len(result)}",
            expected="finite scores",
            found="NaN or infinity",
            do="report the photo with the bundle's name; a 16-bit model may overflow on it",
        )
    return {
        "segmentation": {"size": [h, w], "counts": result.masks[index]["counts"]},
        "bbox": [_pixels(value) for value in (x0, y0, x1 - x0, y1 - y0)],
        "area": rle_area(result.masks[index]),
        "predicted_iou": _fraction(predicted_iou),
        "stability_score": _fraction(stability),
        "point_coords": [[_pixels(value) for value in point]],
        "crop_box": [0, 0, w, h],
        "class": result.names[index],
        "category_id": int(result.class_ids[index]),
        "confidence": _fraction(confidence),
        "score": _fraction(score),
        "runner_up": [[name, _fraction(float(chance))] for name, chance in result.runner_up[index]],
    }


def _pixels(value: float) -> float:
    return round(value, 2) + 0.0  # + 0.0 turns -0.0 into 0.0


def _fraction(value: float) -> float:
    return round(value, 6) + 0.0


def _check_annotation(annotation: Any, number: int, size: list[int], masks: bool) -> None:
    what = f"annotation {number}"
    _expect_keys(what, annotation, _ANNOTATION_KEYS)
    _expect(f"{what} id", str(number), annotation["id"], annotation["id"] == number)
    mask, area = annotation["segmentation"], annotation["area"]
    _expect_keys(f"{what} segmentation", mask, ["size", "counts"])
    _expect(f"{what} segmentation size", f"{size}, the photo's", mask["size"], mask["size"] == size)
    _expect(f"{what} segmentation counts", "a string", mask["counts"], isinstance(mask["counts"], str))
    _expect(f"{what} area", "a whole number from 1", area, _is_int(area) and area >= 1)
    if masks:
        _expect(f"{what} area", "the mask's own", area, rle_area(mask) == area)
    for key, length in (("bbox", 4), ("crop_box", 4)):
        _expect(f"{what} {key}", f"{length} numbers", annotation[key], _is_numbers(annotation[key], length))
    points = annotation["point_coords"]
    good = isinstance(points, list) and all(_is_numbers(point, 2) for point in points)
    _expect(f"{what} point_coords", "a list of [x, y]", points, good)
    for key in ("predicted_iou", "stability_score", "confidence", "score"):
        _expect(f"{what} {key}", "a number", annotation[key], _is_number(annotation[key]))
    _expect(f"{what} class", "a name", annotation["class"], isinstance(annotation["class"], str))
    category = annotation["category_id"]
    _expect(f"{what} category_id", "a whole number from 1", category, _is_int(category) and category >= 1)
    pairs = annotation["runner_up"]
    good = isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and _is_number(pair[1]) for pair in pairs
    )
    _expect(f"{what} runner_up", "a list of [name, probability]", pairs, good)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    # Compared, not asked: JSON may hold whole numbers that no float can.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_numbers(value: object, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(_is_number, value))


def _expect_keys(what: str, value: object, keys: list[str]) -> None:
    found = sorted(value) if isinstance(value, dict) else type(value).__name__
    _expect(what, f"the keys {', '.join(keys)}", found, isinstance(value, dict) and set(value) == set(keys))


def _expect(what: str, expected: str, found: object, holds: bool) -> None:
    if not holds:
        _wrong(what, expected, repr(found)[:100])


def _wrong(what: str, expected: str, found: str) -> NoReturn:
    raise InputError(f"record: {what}", expected=expected, found=found)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON knows")
