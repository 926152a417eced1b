"""Runs and ground truths made by hand from label maps, and IoU counted one pixel at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from gransam_sdk.evaluation.class_names import VOC_CLASSES
from gransam_sdk.evaluation.outcome import Evaluation
from gransam_sdk.evaluation.voc import evaluate_voc

PALETTE = [value for i in range(256) for value in (i, 255 - i, i // 2)]
NAMES = VOC_CLASSES[1:]


def reference_iou(truths: list[np.ndarray], predictions: list[np.ndarray], classes: int) -> list[float | None]:
    """IoU of each class by counting pixels in Python; None for one that does not occur."""
    both, either = [0] * classes, [0] * classes
    for truth, predicted in zip(truths, predictions, strict=True):
        for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if t != 255:
                for c in {t, p}:
                    either[c] += 1
                    both[c] += t == p
    return [b / e if e else None for b, e in zip(both, either, strict=True)]


def as_list(iou: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in iou.tolist()]


def label_map(gt: Path, photo: str, labels: np.ndarray) -> None:
    folder = gt / "SegmentationClass"
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(PALETTE)
    picture.save(folder / f"{photo}.png")


def annotation(mask: np.ndarray, category: int, name: str, confidence: float = 0.9) -> dict[str, Any]:
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode()},
        "bbox": [float(v) for v in coco_mask.toBbox(code)],
        "area": int(mask.sum()),
        "predicted_iou": 0.9,
        "stability_score": 0.9,
        "point_coords": [[0.5, 0.5]],
        "crop_box": [0, 0, mask.shape[1], mask.shape[0]],
        "class": name,
        "category_id": category,
        "confidence": confidence,
        "score": round(confidence * 0.9, 6),
        "runner_up": [],
    }


def write_run(
    run: Path,
    maps: Mapping[str, np.ndarray],
    names: tuple[str, ...] = NAMES,
    confidence: float = 0.9,
    members: Mapping[str, list[str]] | None = None,
) -> None:
    """A run whose records hold each value of a map as one mask: value i is the label ``names[i - 1]``."""
    masks = {
        key: [(labels == v, int(v), confidence) for v in np.unique(labels) if v not in (0, 255)]
        for key, labels in maps.items()
    }
    write_masks(run, masks, {key: labels.shape for key, labels in maps.items()}, names, members)


def write_masks(
    run: Path,
    masks: Mapping[str, list[tuple[np.ndarray, int, float]]],
    sizes: Mapping[str, tuple[int, ...]],
    names: tuple[str, ...] = NAMES,
    members: Mapping[str, list[str]] | None = None,
) -> None:
    """A run of given masks, each with its label ``names[i - 1]`` as i, and its confidence."""
    (run / "records").mkdir(parents=True)
    classes = [
        {"id": i, "name": name, "members": (members or {}).get(name, [name]), "color": [i, i, i], "threshold": 0.4}
        for i, name in enumerate(names, start=1)
    ]
    (run / "run.json").write_text(json.dumps({"schema": 1, "classes": classes, "settings": {"record_floor": 0.3}}))
    for key, found in masks.items():
        h, w = sizes[key]
        image = {"file_name": key, "width": w, "height": h, "sha256": "0" * 64, "orientation": 1}
        rows = [annotation(mask, label, names[label - 1], confidence) for mask, label, confidence in found]
        numbered = [{"id": i, **row} for i, row in enumerate(rows, start=1)]
        path = run / "records" / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schema": 1, "image": image, "annotations": numbered}) + "\n")


def evaluate(tmp_path: Path, gt: Path, guesses: Mapping[str, np.ndarray], **options: Any) -> Evaluation:
    run = tmp_path / f"run {len(list(tmp_path.iterdir()))}"
    write_run(run, {f"{photo}.jpg": labels for photo, labels in guesses.items()})
    return evaluate_voc(run, gt, bootstrap=200, **options)
