"""Clicks on real photos against plain PyTorch and pycocotools, proposals by hand, and the whole script."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from sample_photos import CHECKPOINT, SHARED

from gransam_sdk.evaluation.clicks import click_point
from gransam_sdk.evaluation.one_click import Clicks
from gransam_sdk.geometry import Frame
from gransam_sdk.models.nano_checkpoint import read_checkpoint
from gransam_sdk.rle import rle_decode, rle_encode

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import click_sheet
import click_truth
import clicked
import segmenter

COCO_DEV = SHARED / "data" / "coco_dev"
PHOTOS = 2


@pytest.fixture(scope="module")
def nano_clicks() -> tuple[Clicks, list[click_sheet.Shown]]:
    with clicked.open_clicked(str(CHECKPOINT), 224, "cpu") as nano:
        return segmenter.click(nano, click_truth.coco_photos(COCO_DEV, PHOTOS))


@pytest.mark.shared
def test_clicks_are_those_of_plain_torch_and_pycocotools(
    nano_clicks: tuple[Clicks, list[click_sheet.Shown]],
) -> None:
    clicks, shown = nano_clicks
    nano = read_checkpoint(CHECKPOINT)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(COCO_DEV / "instances.json"))
    row = 0
    for image in list(coco.dataset["images"])[:PHOTOS]:
        picture = Image.open(COCO_DEV / "images" / image["file_name"]).convert("RGB")
        pixels = np.asarray(picture.resize((224, 224), Image.Resampling.BILINEAR), np.float32)
        tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy() / 127.5 - 1)[None]
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"], iscrowd=False)):
            truth = coco.annToMask(annotation)
            x, y = click_point(truth.astype(bool))
            with torch.no_grad():
                _, predicted, logits = nano(tensor, torch.tensor([[x / picture.width, y / picture.height]]))
                full = torch.nn.functional.interpolate(logits, truth.shape, mode="bilinear", align_corners=False)
            masks = np.asfortranarray((full[0] > 0).numpy().astype(np.uint8).transpose(1, 2, 0))
            iou = coco_mask.iou(coco_mask.encode(masks), [coco_mask.encode(np.asfortranarray(truth))], [0])[:, 0]
            np.testing.assert_allclose(clicks.iou[row], iou, atol=2e-3)
            np.testing.assert_allclose(clicks.predicted[row], predicted[0].numpy(), atol=1e-4)
            assert clicks.areas[row] == truth.sum() and shown[row].point == (x, y)
            assert coco.loadCats(annotation["category_id"])[0]["name"] == shown[row].name
            best = 1 + int(predicted[0, 1:].argmax())
            assert shown[row].iou == clicks.iou[row, best]
            assert (rle_decode(shown[row].found) != masks[:, :, best]).mean() < 1e-3
            row += 1
    assert row == len(clicks.iou) > 10 and np.unique(clicks.photos).tolist() == list(range(PHOTOS))
    assert clicks.iou[clicks.areas > 96**2].max() > 0.7, "something is found"


@pytest.mark.shared
def test_a_bundle_answers_as_its_checkpoint_does() -> None:
    photo = next(click_truth.coco_photos(COCO_DEV, 1))
    points = np.array([[0.3, 0.4], [0.7, 0.6], [0.5, 0.5]], dtype=np.float32)
    with (
        clicked.open_clicked("nano-voc20", 96, "cpu") as bundle,
        clicked.open_clicked(str(CHECKPOINT), 320, "cpu") as nano,
    ):
        assert bundle.side == nano.side == 320 and (bundle.name, nano.name) == ("nano-voc20", "nano")
        graphs, module = bundle(photo.pixels, points), nano(photo.pixels, points)
    np.testing.assert_allclose(graphs.predicted, module.predicted, atol=5e-3)
    assert graphs.logits.shape == module.logits.shape == (3, 4, 80, 80)
    assert ((graphs.logits > 0) == (module.logits > 0)).mean() > 0.999
    assert (graphs.mask(1, 2) == module.mask(1, 2)).mean() > 0.99


@pytest.mark.shared
def test_what_is_clicked_on_in_voc() -> None:
    folder = SHARED / "data" / "voc2012_dev"
    photos = list(click_truth.voc_photos(folder, 12))
    assert len(photos) == 12 and sum(len(photo.truths) for photo in photos) >= 12
    for photo in photos:
        labels = np.asarray(Image.open(folder / "SegmentationClass" / f"{photo.path.stem}.png"))
        np.testing.assert_array_equal(photo.counted, labels != 255)
        for truth, name in zip(photo.truths, photo.names, strict=True):
            assert np.unique(labels[truth]).tolist() == [click_truth.VOC_CLASSES.index(name)]
            assert truth.sum() >= click_truth.SPECK
        left = (labels > 0) & photo.counted & ~photo.truths.any(axis=0)
        assert left.sum() < 0.02 * ((labels > 0) & photo.counted).sum() + 2 * click_truth.SPECK
        assert (photo.truths.sum(axis=0) <= 1).all()


def blocks(*boxes: tuple[int, int, int, int], side: int = 16) -> np.ndarray:
    """Low-res logits: 1 inside a block of rows and columns, -1 outside."""
    logits = np.full((len(boxes), side, side), -1.0, dtype=np.float32)
    for each, (y0, y1, x0, x1) in zip(logits, boxes, strict=True):
        each[y0:y1, x0:x1] = 1.0
    return logits


def photo_of(truths: np.ndarray, counted: np.ndarray | None = None) -> click_truth.ClickPhoto:
    size = truths.shape[1:]
    return click_truth.ClickPhoto(
        path=Path("photo.jpg"),
        pixels=np.zeros((*size, 3), dtype=np.uint8),
        truths=truths,
        names=("thing",) * len(truths),
        counted=np.ones(size, dtype=bool) if counted is None else counted,
    )


class Fixed:
    """Answers every click in the same way."""

    name, side = "fixed", 64

    def __init__(self, logits: np.ndarray, predicted: list[float]) -> None:
        self.logits, self.predicted = logits, predicted

    def __call__(self, pixels: np.ndarray, points: np.ndarray) -> clicked.Answers:
        self.points = points
        g = len(points)
        return clicked.Answers(
            frame=Frame.fit(pixels.shape[:2], self.side, "stretch"),
            predicted=np.tile(np.array(self.predicted, dtype=np.float32), (g, 1)),
            logits=np.tile(self.logits, (g, 1, 1, 1)),
        )


def test_proposals_are_all_four_masks_best_first_and_each_thing_once() -> None:
    left, right, nothing = (0, 16, 0, 8), (0, 16, 8, 16), (0, 0, 0, 0)
    nearly_left = (0, 16, 0, 7)
    fixed = Fixed(blocks(nearly_left, left, right, nothing), [0.9, 0.8, 0.95, 1.0])
    found = segmenter.propose(fixed, photo_of(np.zeros((0, 32, 48), dtype=bool)))
    assert len(fixed.points) == 100 and found.shape == (2, 32, 48) and found.dtype == bool
    assert found[0, :, 24:].all() and not found[0, :, :23].any(), "the right half is the surest; nothing is no mask"
    assert found[1, :, :20].all() and not found[1, :, 23:].any(), "token 0 is sure of the left, token 1 is too late"
    none = segmenter.propose(Fixed(blocks(*[nothing] * 4), [1.0] * 4), photo_of(np.zeros((0, 9, 7), dtype=bool)))
    assert none.shape == (0, 9, 7) and none.dtype == bool


def test_ignored_pixels_count_nowhere() -> None:
    truth = np.zeros((1, 32, 32), dtype=bool)
    truth[0, :, :16] = True
    fixed = Fixed(blocks((0, 16, 0, 8), (0, 16, 0, 16), (0, 16, 0, 4), (0, 0, 0, 0)), [0.5, 0.9, 0.2, 0.1])
    clicks, shown = segmenter.click(fixed, [photo_of(truth)])
    np.testing.assert_allclose(clicks.iou, [[1, 0.5, 0.5, 0]], atol=0.04)
    np.testing.assert_allclose(fixed.points, [[click_point(truth[0])[0] / 32, click_point(truth[0])[1] / 32]])
    assert shown[0].iou == clicks.iou[0, 1] and shown[0].truth == rle_encode(truth[0])
    counted = np.ones((32, 32), dtype=bool)
    counted[:, 16:24] = False  # half of what mask 1 takes too much
    ignoring, _ = segmenter.click(fixed, [photo_of(truth, counted)])
    np.testing.assert_allclose(ignoring.iou, [[1, 2 / 3, 0.5, 0]], atol=0.04)


def test_sides_and_names_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="multiple of 32"), clicked.open_clicked("some.safetensors", 100, "cpu"):
        pass
    with pytest.raises(SystemExit, match="two"):
        segmenter.check_names(["a/nano.safetensors", "b/nano.safetensors"])
    segmenter.check_names(["a/nano.safetensors", "b/nano-2.safetensors", "nano-voc20"])


def shown_at(iou: float, photo: str) -> click_sheet.Shown:
    mask = rle_encode(np.ones((4, 4), dtype=bool))
    return click_sheet.Shown(
        photo=Path(photo), name="thing", point=(2.0, 2.0), truth=mask, found=mask, iou=iou, predicted=0.5
    )


def test_the_sheet_shows_best_median_and_worst_of_different_photos() -> None:
    shown = [shown_at(number / 100, f"{number // 2}.jpg") for number in range(101)]
    rows = click_sheet.choose(shown)
    assert [each.iou for each in rows["Best"]] == [1.0, 0.99, 0.97, 0.95, 0.93, 0.91]
    assert [each.iou for each in rows["Worst"]] == [0.0, 0.02, 0.04, 0.06, 0.08, 0.10]
    assert [each.iou for each in rows["Median"]] == [0.50, 0.49, 0.52, 0.47, 0.54, 0.45]


@pytest.mark.parametrize(
    ("box", "size", "wanted"),
    [
        ((200, 200, 300, 250), (480, 640), (160, 135, 340, 315)),  # a square with room on each side
        ((0, 400, 100, 480), (480, 640), (0, 300, 180, 480)),  # moved into the photo
        ((10, 10, 20, 20), (480, 640), (0, 0, 96, 96)),  # never less than this
        ((200, 90, 500, 390), (480, 640), (110, 0, 590, 480)),  # with less room where the photo has no more
        ((0, 0, 640, 300), (480, 640), (0, 0, 640, 480)),  # cut where the instance is longer than the photo is wide
    ],
)
def test_crops(box: tuple[int, ...], size: tuple[int, int], wanted: tuple[int, ...]) -> None:
    assert click_sheet.crop_box(box, size) == wanted  # type: ignore[arg-type]


@pytest.mark.shared
def test_the_whole_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[Any], list[Any], int]] = []

    def average_recall(truths: Any, proposals: Any, limit: int) -> SimpleNamespace:
        asked.append((list(truths), list(proposals), limit))
        return SimpleNamespace(ar=0.25, ar_large=0.5)

    stand_in = ModuleType("average_recall")
    stand_in.average_recall = average_recall  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gransam_sdk.evaluation.average_recall", stand_in)
    file, sheet = tmp_path / "result.json", tmp_path / "sheet.png"
    script = Path(__file__).parents[1] / "benchmarks" / "segmenter.py"
    arguments = [
        CHECKPOINT,
        "--data",
        SHARED / "data",
        "--side",
        128,
        160,
        "--photos",
        2,
        "--sheet",
        sheet,
        "--json",
        file,
    ]
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    segmenter.main()
    result = json.loads(file.read_text(encoding="utf-8"))
    rows, columns = result["rows"], result["columns"]
    assert len(rows) == 2 * 4 + 2 and all(len(row) == len(columns) for row in rows)
    assert [row[:3] for row in rows[:4]] == [
        ["nano", 128, f"{data}, {size}"] for data in ("COCO", "VOC") for size in ("all", "from 32²")
    ]
    recalls = [row[columns.index("AR100 %")] for row in rows]
    assert recalls == [25.0, 50.0, None, None] * 2 + [None, None]
    assert [row[columns.index("clicks")] for row in rows][:4] == [row[columns.index("clicks")] for row in rows][4:8]
    assert all("published" in row[0] and "another protocol" in row[2] for row in rows[-2:])
    assert "the first 2 photos" in result["question"] and len(result["plots"]) == 1
    assert len(asked) == 2 and asked[0][2] == 100
    for truths, proposals in zip(*asked[0][:2], strict=True):
        assert truths.dtype == proposals.dtype == bool and truths.shape[1:] == proposals.shape[1:]
        assert 5 < len(proposals) <= 100 and proposals.any(axis=(1, 2)).all()
    with Image.open(sheet) as picture:
        assert picture.width > 1500 and picture.height > 900
