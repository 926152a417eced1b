"""What do suppression, resizing and run-length encoding cost, each by itself, on the masks of real photos?

python benchmarks/post.py --photos ../shared/data/coco_dev/images [--bundle NAME|DIR ...] [--count N] [--json FILE]

Each photo is brought to 1920 x 1080, its 100 clicks give 300 masks, and every step is done in the product's way and in
the usual one, in turn, on one thread. Both must give the same: the same masks kept, the same bytes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from eager import resize_masks
from kept import encode
from PIL import Image
from pycocotools import mask as coco
from result import Cell, write_result

from gransam_sdk.bundle import open_bundle
from gransam_sdk.geometry import Frame, full_size_mask
from gransam_sdk.nms import mask_nms
from gransam_sdk.rle import rle_encode_crop
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.load import open_sessions
from gransam_sdk.runtime.model import Model
from gransam_sdk.shapes import Float
from gransam_sdk.types import PointGrid, Settings

SIZE = (1080, 1920)
MASKS = (1, 2, 3)
"""The three masks of a click."""
OURS, USUAL = "ours", "usual"
STEPS = {
    "nms": ("suppress 300 masks", "lists of codes, pycocotools"),
    "resize": ("resize a mask inside its box", "bilinear over the photo, torch"),
    "rle": ("encode a mask", "pycocotools, the photo's size"),
}
T = TypeVar("T")
Samples = dict[tuple[str, str], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--bundle", nargs="+", default=["nano-voc20"])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--json", type=Path, help="instead of benchmarks/results/post.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[list[Cell]] = []
    for name in options.bundle:
        with open_sessions(open_bundle(name), "cpu", None) as model:
            samples: Samples = defaultdict(list)
            boxes: list[float] = []
            for path in sorted(options.photos.iterdir())[: options.count]:
                boxes += measure(model, path, samples)
        rows += table(model.bundle.architecture, samples, statistics.mean(boxes))
    write_result(
        "post",
        title="Suppression, resizing, run lengths",
        question="What does each step after the graphs cost by itself?",
        columns=("masks of", "step", "ms, median", "ms, p95", "usual way", "its ms", "faster"),
        rows=rows,
        notes=[
            f"{options.count} photos at {SIZE[1]} x {SIZE[0]}, 300 masks each, one thread, the ways in turn. "
            "Suppression is exact at low-res size: nothing is left to recheck. Kept masks and codes' bytes are equal, "
            "or this program stops; of resized masks the usual way's pixels may differ where a value rounds to 0, and "
            "fewer than one in ten thousand do. Resizing and encoding are per mask that survives.",
        ],
        path=options.json,
    )


def measure(model: Model, path: Path, samples: Samples) -> list[float]:
    """Times each step on one photo; returns the share of the photo that each mask's box fills."""
    pixels = np.asarray(Image.fromarray(as_pixels(path)).resize(SIZE[::-1], Image.Resampling.BICUBIC))
    frame = model.frame(pixels)
    logits, scores = masks_of(model, pixels, frame)
    rows, columns = frame.valid(model.bundle.low_res_side)
    low_res = logits[:, :rows, :columns] > 0
    threshold = Settings().nms_iou
    kept = clocked(samples, "nms", OURS, lambda: mask_nms(low_res, scores, threshold).tolist())
    if kept != clocked(samples, "nms", USUAL, lambda: usual_nms(encode(low_res), scores, threshold)):
        raise SystemExit(f"{path.name}: pycocotools keeps other masks")
    shares = []
    for one in logits[[mask for mask in kept if low_res[mask].any()]]:
        crop, x0, y0 = clocked(samples, "resize", OURS, lambda one=one: full_size_mask(one, frame))
        whole = clocked(samples, "resize", USUAL, lambda one=one: (resized(one, frame) > 0).numpy())
        mask = np.zeros(SIZE, dtype=np.bool_)
        mask[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] = crop
        if (mask != whole).sum() > 1e-4 * mask.size:
            raise SystemExit(f"{path.name}: a resized mask differs by {(mask != whole).sum()} pixels")
        code = clocked(samples, "rle", OURS, lambda c=crop, x=x0, y=y0: rle_encode_crop(c, x, y, SIZE))
        same = clocked(samples, "rle", USUAL, lambda m=mask: coco.encode(np.asfortranarray(m.view(np.uint8))))
        if code["counts"] != same["counts"].decode():
            raise SystemExit(f"{path.name}: pycocotools writes other bytes")
        shares.append(crop.size / mask.size)
    return shares


def masks_of(model: Model, pixels: Any, frame: Frame) -> tuple[Float, Float]:
    """Low-res logits (300,l,l) of every click's three masks, and their predicted IoU (300,)."""
    hoisted = model.hoist(model.prepare(pixels, frame))
    chunk = model.bundle.prompt_chunk
    parts = list(model.prompt(hoisted, frame, PointGrid(per_side=10).points(), chunk))
    state = {name: np.concatenate([part.state[name] for part in parts]) for name in parts[0].state}
    prompts = sum(len(part.iou) for part in parts)
    choices = [np.full(prompts, mask, dtype=np.int64) for mask in MASKS]
    logits = np.concatenate([model.masks(hoisted, state, choice, chunk) for choice in choices])
    return logits, np.concatenate([part.iou for part in parts])[:, MASKS].T.reshape(-1)


def usual_nms(codes: list[Any], scores: Float, threshold: float) -> list[int]:
    """Greedy suppression with pycocotools' IoU of all pairs."""
    overlap = coco.iou(codes, codes, [0] * len(codes))
    kept: list[int] = []
    for i in np.lexsort((np.arange(len(codes)), -scores)).tolist():
        if all(overlap[i, j] <= threshold for j in kept):
            kept.append(i)
    return kept


def resized(logits: Float, frame: Frame) -> torch.Tensor:
    """One mask's logits (h,w) at the photo's size."""
    return resize_masks(torch.from_numpy(logits)[None, None], frame)[0, 0]


def clocked(samples: Samples, step: str, way: str, work: Callable[[], T]) -> T:
    """The answer of ``work``, its milliseconds added to the samples."""
    begun = time.perf_counter()
    answer = work()
    samples[step, way].append(1000 * (time.perf_counter() - begun))
    return answer


def table(arch: str, samples: Samples, box: float) -> list[list[Cell]]:
    """A row a step; ``box`` is the mean share of the photo that a mask's box fills."""
    rows: list[list[Cell]] = []
    for step, (ours, usual) in STEPS.items():
        mine, other = samples[step, OURS], samples[step, USUAL]
        ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
        name = f"{ours}, boxes of {box:.0%} of the photo" if step == "resize" else ours
        middle, late = round(statistics.median(mine), 2), round(float(np.percentile(mine, 95)), 2)
        rows.append([arch, name, middle, late, usual, round(statistics.median(other), 2), f"{ratio:.1f}×"])
    return rows


if __name__ == "__main__":
    main()
