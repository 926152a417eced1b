"""Records made by hand from dense masks, with pycocotools as the encoder: shared by the tests of exporters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from gransam_sdk.annotate.exporters import ClassEntry

CLASSES = (
    ClassEntry(id=1, name="cat", color=(64, 0, 0), threshold=0.4),
    ClassEntry(id=2, name="dog", color=(64, 0, 128), threshold=0.5),
    ClassEntry(id=3, name='"häst" <x-class>&', color=(192, 0, 128), threshold=0.3),
)


def annotation(
    mask: np.ndarray, category: int, confidence: float, score: float, runner_up: Sequence[tuple[str, float]] = ()
) -> dict[str, Any]:
    """One annotation without its id; the mask is (h,w) bool."""
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode()},
        "bbox": [float(v) for v in coco_mask.toBbox(code)],
        "area": int(mask.sum()),
        "predicted_iou": round(score / confidence, 6),
        "stability_score": 0.9,
        "point_coords": [[0.5, 0.5]],
        "crop_box": [0, 0, mask.shape[1], mask.shape[0]],
        "class": CLASSES[category - 1].name,
        "category_id": category,
        "confidence": confidence,
        "score": score,
        "runner_up": [list(pair) for pair in runner_up],
    }


def record(key: str, size: tuple[int, int], annotations: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """A record as a run writes it: size is (h, w), annotations get their ids by falling score."""
    image = {"file_name": key, "width": size[1], "height": size[0], "orientation": 1}
    image["sha256"] = hashlib.sha256(key.encode()).hexdigest()
    ranked = sorted(annotations, key=lambda a: -a["score"])
    numbered = [{"id": i, **a} for i, a in enumerate(ranked, start=1)]
    return {"schema": 1, "image": image, "annotations": numbered}


def random_records(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Records of blobs with holes and parts, in key order; every fifth is empty, some masks are under the threshold."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        size = (int(random.integers(1, 40)), int(random.integers(1, 40)))
        found = []
        for _ in range(0 if i % 5 == 4 else int(random.integers(1, 6))):
            mask = random.random(size) < random.random()
            mask.flat[int(random.integers(mask.size))] = True
            confidence = round(float(random.uniform(0.3, 1.0)), 6)
            score = round(confidence * float(random.uniform(0.5, 1.0)), 6)
            found.append(annotation(mask, int(random.integers(1, 4)), confidence, score, [("cat", 0.1)]))
        made.append(record(f"day {i // 10}/{i:05d} ü.jpg", size, found))
    return made


class Passes:
    """Hands records out and counts the passes over them."""

    def __init__(self, make: Callable[[], Iterator[dict[str, Any]]]) -> None:
        self.make = make
        self.count = 0

    def __call__(self) -> Iterator[dict[str, Any]]:
        self.count += 1
        return self.make()


class MemoryFolder:
    """Takes what an exporter writes, as the run folder does, and keeps it in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def put(self, relative: str, data: bytes) -> None:
        self.files[relative] = data

    def open_stream(self, relative: str) -> _Stream:
        return _Stream(self, relative)


class _Stream:
    def __init__(self, folder: MemoryFolder, relative: str) -> None:
        self.folder, self.relative, self.data = folder, relative, bytearray()

    def __enter__(self) -> _Stream:
        return self

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.folder.put(self.relative, bytes(self.data))
