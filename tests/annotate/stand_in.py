"""A segmenter without a model, photos to feed it, and the hash of what a run leaves: shared by the tests of runs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from gransam_sdk.annotate.outputs import OutputFolder
from gransam_sdk.annotate.photo_source import PhotoSource
from gransam_sdk.annotate.progress import Progress
from gransam_sdk.annotate.publish import Products
from gransam_sdk.annotate.run import RunOptions, run_photos
from gransam_sdk.annotate.tally import RunReport
from gransam_sdk.classes import select_classes
from gransam_sdk.rle import rle_box, rle_encode
from gransam_sdk.runtime.result import Result
from gransam_sdk.types import ClassInfo, Settings

BAD = ["a/bad/empty.jpg", "a/bad/page.jpg", "z-cut.png"]
"""Keys of what ``make_photos`` adds to the good ones, in walk order."""
CLASSES = (
    ClassInfo(id=1, name="cat", color=(200, 30, 30), threshold=0.6),
    ClassInfo(id=2, name="dog", color=(30, 200, 30), threshold=0.4),
    ClassInfo(id=3, name="hävet", color=(30, 30, 200)),
)
STAGES = {"image graph": 0.001, "prompt graph": 0.002}
BAD_PHOTOS = {
    "a/bad/empty.jpg": b"",
    "a/bad/page.jpg": b"<html>no photo, but long enough to be one</html>",
    "z-cut.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x18\x00\x00\x00\x12\x08\x02",
}


class StandIn:
    """Labels a photo by a hash of its pixels, so that the same photo always gives the same masks."""

    provider = "StandIn"
    threads = at_once = 1
    reduced_chunks: Mapping[str, int] = MappingProxyType({})
    least = None
    bundle = SimpleNamespace(
        name="stand-in",
        version="1",
        digest="ab" * 32,
        description="hashes, for tests",
        precision="none",
        licence={"code": "Apache-2.0", "weights": "none"},
        provenance={"weights": "none", "training_data": ("nothing", "at all")},
        contents={"model-card.md": b"# Stand-in\n\n## What it cannot do\n\n- **See**: it hashes\n  pixels.\n"},
    )

    def __init__(
        self,
        *,
        seconds: float = 0.0,
        nms_iou: float = 0.5,
        classes: Sequence[ClassInfo] = CLASSES,
        conf: float | None = None,
    ) -> None:
        self.settings = Settings(record_floor=0.3, nms_iou=nms_iou, conf=conf)
        self.classes = select_classes(classes, conf=conf)
        self.seen = 0
        self._seconds = seconds

    @property
    def fingerprint(self) -> dict[str, object]:
        nms = {"iou": self.settings.nms_iou}
        return {"bundle": self.bundle.digest, "nms": nms, "classes": self.classes.to_json()}

    def prepare(self, pixels: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
        assert size == pixels.shape[:2]  # its photos are too small to be decoded to scale
        return pixels

    def infer(self, pixels: np.ndarray) -> Result:
        time.sleep(self._seconds)
        self.seen += 1
        seed = int.from_bytes(hashlib.sha256(pixels.tobytes()).digest()[:8], "little")
        rng = np.random.default_rng(seed)
        return random_result(rng, pixels.shape[:2], count=int(rng.integers(0, 4)))

    def finish(self, result: Result) -> Result:
        return result


def random_result(rng: np.random.Generator, size: tuple[int, int], count: int) -> Result:
    """A result with ``count`` rectangles of random classes, highest score first."""
    h, w = size
    masks = []
    for _ in range(count):
        mask = np.zeros((h, w), dtype=np.bool_)
        y, x = int(rng.integers(0, h - 2)), int(rng.integers(0, w - 2))
        mask[y : y + int(rng.integers(1, h - y)), x : x + int(rng.integers(1, w - x))] = True
        masks.append(rle_encode(mask))
    labels = rng.integers(0, len(CLASSES), count)
    confidence = np.sort(rng.uniform(0.3, 1.0, count).astype(np.float32))[::-1]
    return Result(
        size=(h, w),
        class_ids=labels.astype(np.int64) + 1,
        names=tuple(CLASSES[label].name for label in labels),
        confidence=confidence,
        predicted_iou=np.full(count, 0.9, dtype=np.float32),
        stability_score=rng.uniform(0.5, 1.0, count).astype(np.float32),
        boxes=np.array([rle_box(mask) for mask in masks], dtype=np.float32).reshape(-1, 4),
        masks=tuple(masks),
        points=rng.uniform(0, 10, (count, 2)).astype(np.float32),
        runner_up=tuple((("dog", 0.123456789), ("cat", 0.01)) for _ in range(count)),
        passed=np.ones(count, dtype=np.bool_),
        timings=STAGES,
    )


def make_photos(folder: Path, good: int, bad: Mapping[str, bytes] = BAD_PHOTOS) -> Path:
    """A tree of tiny photos, some of which are none."""
    rng = np.random.default_rng(7)
    for number in range(good):
        path = folder / ("", "a", "a/deep", "b")[number % 4] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (18, 24, 3), dtype=np.uint8)).save(path)
    for name, data in bad.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def annotate(
    photos: Path,
    out: Path,
    *,
    segmenter: StandIn | None = None,
    limit: int | None = None,
    max_failures: int | None = None,
    progress: Progress | None = None,
    products: Products | None = None,
) -> RunReport:
    """``annotate_folder`` without a model and, unless asked for, without overlays and report."""
    products = products or Products(formats=("coco", "voc"), overlays=False, report=False)
    source = PhotoSource(photos, exclude=out, limit=limit)
    options = RunOptions(products=products, max_failures=max_failures)
    with OutputFolder.open(out) as folder:
        return run_photos(segmenter or StandIn(), source, folder, options, progress=progress)


def tree(run: Path) -> dict[str, str]:
    """sha256 by relative path of everything in a run folder that is promised to be the same however a run was cut."""
    files = [path for path in run.rglob("*") if path.is_file()]
    kept = [path for path in files if path.relative_to(run).parts[0] not in (".lock", "run.json", "report.html")]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def record_names(run: Path) -> list[str]:
    """Relative paths of the records in a run folder, sorted."""
    return sorted(str(path.relative_to(run / "records")) for path in (run / "records").rglob("*.json"))


def run_json(out: Path) -> dict[str, Any]:
    """The contents of a run's ``run.json``."""
    return json.loads((out / "run.json").read_text())


def failures(out: Path) -> list[dict[str, str]]:
    """The lines of a run's ``failures.jsonl``."""
    return [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]


class Log:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.total: int | None = -1
        self.seen: list[tuple[str, str]] = []
        self.finished = 0

    def start(self, total: int | None) -> None:
        self.total = total

    def advance(self, key: str, status: str) -> None:
        self.seen.append((key, status))

    def finish(self) -> None:
        self.finished += 1
