"""What ``make demo`` promises: the embedded bundle on the five sample photos, seen by eye and written down here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gransam_sdk import RunReport, annotate_folder
from gransam_sdk.rle import rle_decode

CAT_BOX = (0, 0, 400, 300)
"""XYXY in chelsea.png (451 × 300), drawn by hand: head and shoulders, cut by three sides of the photo."""
MOTORCYCLE_BOX = (92, 15, 684, 452)
"""XYXY in motorcycle_left.png (741 × 500), drawn by hand: rear light to front tyre, right mirror to front tyre."""
FACE = (225, 125)
"""XY in astronaut.png: the nose."""


@pytest.fixture(scope="session")
def demo(sample_photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    out = tmp_path_factory.mktemp("demo") / "run"
    return annotate_folder(list(sample_photos.values()), out, to=("coco", "voc"), overlays=True)


@pytest.fixture(scope="session")
def thresholds(demo: RunReport) -> dict[str, float]:
    classes = json.loads((demo.run / "run.json").read_text(encoding="utf-8"))["classes"]
    return {entry["name"]: entry["threshold"] for entry in classes}


def masks_of(demo: RunReport, photo: str, thresholds: dict[str, float]) -> Iterator[tuple[str, Any]]:
    """(class, (h,w) bool mask) of everything in a photo's record that passes its class's threshold."""
    record = json.loads((demo.run / "records" / f"{photo}.json").read_text(encoding="utf-8"))
    for annotation in record["annotations"]:
        if annotation["confidence"] >= thresholds[annotation["class"]]:
            yield annotation["class"], rle_decode(annotation["segmentation"])


def box_iou(mask: Any, box: tuple[int, int, int, int]) -> float:
    """IoU of a hand-drawn box and the smallest box around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    width, height = min(x1, box[2]) - max(x0, box[0]), min(y1, box[3]) - max(y0, box[1])
    shared = max(width, 0) * max(height, 0)
    return float(shared / ((x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1]) - shared))


def test_all_photos_are_annotated(demo: RunReport, sample_photos: dict[str, Path]) -> None:
    assert (demo.new, demo.failed, demo.exit_code) == (5, 0, 0)
    records = {path.name for path in (demo.run / "records").iterdir()}
    assert records == {f"{name}.json" for name in sample_photos}


@pytest.mark.parametrize(
    ("photo", "name", "box"),
    [("chelsea.png", "cat", CAT_BOX), ("motorcycle_left.png", "motorbike", MOTORCYCLE_BOX)],
)
def test_the_animal_and_the_machine_are_found_where_they_are(
    photo: str, name: str, box: tuple[int, int, int, int], demo: RunReport, thresholds: dict[str, float]
) -> None:
    masks = [mask for label, mask in masks_of(demo, photo, thresholds) if label == name]
    assert masks, f"no {name} in {photo}"
    assert box_iou(np.logical_or.reduce(masks), box) >= 0.6


def test_the_face_is_part_of_a_person(demo: RunReport, thresholds: dict[str, float]) -> None:
    x, y = FACE
    labels = [label for label, mask in masks_of(demo, "astronaut.png", thresholds) if mask[y, x]]
    assert "person" in labels


def test_exports_and_overlays_are_there(demo: RunReport, sample_photos: dict[str, Path]) -> None:
    coco = json.loads((demo.run / "exports" / "coco.json").read_text(encoding="utf-8"))
    assert {image["file_name"] for image in coco["images"]} == set(sample_photos)
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert {"cat", "person", "motorbike"} <= {names[entry["category_id"]] for entry in coco["annotations"]}
    for name, path in sample_photos.items():
        with Image.open(path) as photo, Image.open(demo.run / "overlays" / f"{name}.jpg") as overlay:
            assert overlay.size == photo.size
        with Image.open(demo.run / "exports" / "voc" / "SegmentationClass" / f"{name}.png") as labels:
            assert labels.mode == "P"


def test_the_coco_file_is_that_of_its_readers(demo: RunReport, thresholds: dict[str, float]) -> None:
    """pycocotools decodes every mask to the pixels that the record holds."""
    from pycocotools.coco import COCO

    coco = COCO(demo.run / "exports" / "coco.json")
    for image in coco.loadImgs(coco.getImgIds()):
        entries = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        own = [mask for _, mask in masks_of(demo, image["file_name"], thresholds)]
        assert len(entries) == len(own)
        theirs = {coco.annToMask(entry).astype(bool).tobytes() for entry in entries}
        assert theirs == {mask.tobytes() for mask in own}
        assert all(entry["area"] == coco.annToMask(entry).sum() and entry["iscrowd"] == 0 for entry in entries)


def test_the_report_is_one_file(demo: RunReport, sample_photos: dict[str, Path]) -> None:
    page = (demo.run / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in sample_photos)
    assert 'src="http' not in page and 'href="http' not in page
