"""VOC label maps: which mask wins a pixel, against a pixel-by-pixel reference; the PNG as PIL reads it back."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hand_records import CLASSES, MemoryFolder, annotation, random_records, record
from PIL import Image
from pycocotools import mask as coco_mask

from gransam_sdk.annotate.exporters import ClassEntry, kept_annotations
from gransam_sdk.annotate.exporters.voc import export_voc, semantic_map
from gransam_sdk.errors import InputError

# pycocotools hands numpy an object from before numpy 2; nothing of ours is in it
FOLDER = "exports/voc/SegmentationClass"


def export(records: list[dict[str, Any]], classes: tuple[ClassEntry, ...] = CLASSES) -> dict[str, bytes]:
    folder = MemoryFolder()
    export_voc(lambda: iter(records), classes, folder)  # type: ignore[arg-type]
    return folder.files


def pixel_by_pixel(annotations: list[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    dense = [coco_mask.decode(a["segmentation"]).astype(bool) for a in annotations]
    labels = np.zeros(size, dtype=np.uint8)
    for y, x in np.ndindex(size):
        covering = [(-a["score"], a["area"], i) for i, a in enumerate(annotations) if dense[i][y, x]]
        if covering:
            labels[y, x] = annotations[min(covering)[2]]["category_id"]
    return labels


def boxes(*spans: tuple[int, int, float, int]) -> dict[str, Any]:
    """Masks of one row: from column a to b, score, category."""
    found = []
    for a, b, score, category in spans:
        mask = np.zeros((1, 6), dtype=bool)
        mask[0, a:b] = True
        found.append(annotation(mask, category, 0.9, score))
    return record("row.png", (1, 6), found)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (boxes(), [0, 0, 0, 0, 0, 0]),
        (boxes((0, 4, 0.5, 1), (2, 6, 0.8, 2)), [1, 1, 2, 2, 2, 2]),  # the higher score wins
        (boxes((0, 4, 0.8, 1), (2, 6, 0.5, 2)), [1, 1, 1, 1, 2, 2]),
        (boxes((0, 5, 0.5, 1), (3, 6, 0.5, 2)), [1, 1, 1, 2, 2, 2]),  # equal scores: the smaller mask
        (boxes((0, 3, 0.5, 2), (1, 6, 0.5, 1)), [2, 2, 2, 1, 1, 1]),
        (boxes((0, 4, 0.5, 3), (2, 6, 0.5, 2)), [3, 3, 3, 3, 2, 2]),  # equal in both: the earlier one
    ],
)
def test_the_winner_of_a_pixel(made: dict[str, Any], expected: list[int]) -> None:
    np.testing.assert_array_equal(semantic_map(made, made["annotations"]), [expected])


def test_maps_equal_a_pixel_by_pixel_reference() -> None:
    records = random_records(30, seed=3)
    files = export(records)
    for made in records:
        size = (made["image"]["height"], made["image"]["width"])
        with Image.open(io.BytesIO(files[f"{FOLDER}/{made['image']['file_name']}.png"])) as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.array(picture), pixel_by_pixel(kept_annotations(made, CLASSES), size))


def test_values_can_stand_in_for_ids() -> None:
    made = boxes((0, 4, 0.5, 1), (2, 6, 0.8, 2))
    np.testing.assert_array_equal(semantic_map(made, made["annotations"], {1: 8, 2: 12}), [[8, 8, 12, 12, 12, 12]])


def test_the_palette_shows_the_classes_colours() -> None:
    files = export([boxes((0, 2, 0.5, 1), (2, 4, 0.5, 3))])
    with Image.open(io.BytesIO(files[f"{FOLDER}/row.png.png"])) as picture:
        colours = np.array(picture.convert("RGB"))[0].tolist()
    assert colours == [[64, 0, 0]] * 2 + [[192, 0, 128]] * 2 + [[0, 0, 0]] * 2
    assert files["exports/voc/labelmap.txt"].decode().splitlines() == [
        "# label:color_rgb:parts:actions",
        "background:0,0,0::",
        "cat:64,0,0::",
        "dog:64,0,128::",
        '"häst" <x-class>&:192,0,128::',
    ]


def test_a_colon_in_a_name_does_not_end_its_field_in_the_label_map() -> None:
    files = export([], (ClassEntry(id=1, name="dog: wet\nbig", color=(1, 2, 3), threshold=0.5),))
    assert files["exports/voc/labelmap.txt"].decode().splitlines()[2:] == ["dog_ wet_big:1,2,3::"]


def test_photos_that_share_a_stem_do_not_share_a_map() -> None:
    names = ["a.jpg", "a.png", "a.png.jpg", "b/a.jpg"]
    files = export([record(name, (2, 3)) for name in names])
    assert sorted(files) == sorted([*(f"{FOLDER}/{name}.png" for name in names), "exports/voc/labelmap.txt"])


def test_bytes_are_a_function_of_the_records() -> None:
    assert export(random_records(8)) == export(random_records(8))


def test_ids_must_fit_into_a_byte_below_void() -> None:
    assert export([], (ClassEntry(id=254, name="last", color=(1, 2, 3), threshold=0.5),))
    with pytest.raises(InputError, match="up to 254"):
        export([], (ClassEntry(id=255, name="void", color=(1, 2, 3), threshold=0.5),))
